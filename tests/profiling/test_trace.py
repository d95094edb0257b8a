"""A trace survives its file, and what is none is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingot.profiling.errors import ProfileError
from ingot.profiling.trace import Counter, Event, Header, Trace, from_chrome, read_json


def test_round_trip(tmp_path: Path) -> None:
    trace = Trace(
        Header(engine="ingot", name="demo", result={"tokens": [1, 2]}),
        [Event("linear", "op", 1.5, 2.5, 7, {"module": "lm_head"}), Event("step", "step", 1, 4)],
        [Counter("memory", 2.0, {"rss_mb": 3.0})],
    )
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(trace.to_chrome()))
    assert from_chrome(read_json(path), str(path)) == trace


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({}, "no list of traceEvents"),
        ("trace", "no list of traceEvents"),
        ({"traceEvents": [1]}, "no list of traceEvents"),
        ({"traceEvents": [{"ph": "X", "name": "a"}]}, "malformed"),
        ({"traceEvents": [], "ingot": {"surprise": 1}}, "malformed"),
        ({"traceEvents": [], "ingot": {"format_version": 99}}, "trace format 99"),
    ],
)
def test_not_a_trace(document: object, sentence: str) -> None:
    with pytest.raises(ProfileError, match=sentence):
        from_chrome(document, "t.json")


def test_cut_off(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"traceEvents": [')
    with pytest.raises(ProfileError, match="cut off"):
        read_json(tmp_path / "t.json")
    with pytest.raises(ProfileError, match="cannot read"):
        read_json(tmp_path / "missing.json")

"""Traces that other profilers wrote, recorded from a model of two layers and a norm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingot.profiling import attribution
from ingot.profiling.comparison.compare import compare
from ingot.profiling.errors import ProfileError
from ingot.profiling.readers import read_trace
from ingot.profiling.trace import Trace

TRACES = Path(__file__).parent / "traces"


def modules(trace: Trace) -> set[str]:
    return {event.module for event in trace.events if event.category != "step"} - {""}


def check_form(trace: Trace) -> None:
    """docs/trace.md: events do not overlap, and lie in steps."""
    events = sorted((e for e in trace.events if e.category != "step"), key=lambda e: e.start_us)
    for one, other in zip(events, events[1:], strict=False):
        assert one.end_us <= other.start_us + 1e-3
    for event in events:
        assert any(s.start_us <= event.start_us <= s.end_us for s in trace.steps())


def test_torch_profiler_with_ranges_named_as_modules() -> None:
    trace = read_trace(TRACES / "torch_profiler_ranges.json")
    check_form(trace)
    paths = {f"layers.{i}{part}" for i in (0, 1) for part in ("", ".up", ".down")}
    assert modules(trace) == paths | {"norm"}
    assert len(trace.steps()) == 1
    inside = {(e.category, e.name) for e in trace.events if e.module == "layers.0.up"}
    assert ("op", "aten::addmm") in inside
    assert ("host", "layers.0.up") in inside


def test_torch_profiler_with_frames() -> None:
    trace = read_trace(TRACES / "torch_profiler_frames.json")
    check_form(trace)
    assert "Net_0.Mlp_1.Linear_3" in modules(trace)
    assert all(module.startswith("Net_0") for module in modules(trace))
    assert len(trace.steps()) == 2  # the outermost module was called twice


def test_onnxruntime() -> None:
    trace = read_trace(TRACES / "onnxruntime.json")
    check_form(trace)
    assert modules(trace) == {f"layers.{i}.{part}" for i in (0, 1) for part in ("up", "down")} | {
        "norm"
    }
    assert len(trace.steps()) == 2
    assert {e.name for e in trace.events if e.module == "layers.0.up"} == {"FusedGemm"}


def test_two_profilers_compared() -> None:
    names = ("torch_profiler_ranges.json", "onnxruntime.json")
    found = compare([read_trace(TRACES / name) for name in names], names)
    assert [engine["name"] for engine in found["engines"]] == ["torch.profiler", "onnxruntime"]
    rows = {row["module"]: row for row in found["rows"]}
    assert rows["layers.1.down"]["torch.profiler_ms"] > 0
    assert rows["layers.1.down"]["onnxruntime_ms"] > 0
    assert found["outputs_agree"] is None
    assert found["phases"] == {}  # neither says which step reads a prompt


def test_self_times_add_up() -> None:
    """What nests is cut, nothing is lost: the outermost ranges' own lengths are the sum."""
    trace = read_trace(TRACES / "torch_profiler_frames.json")
    cut = attribution.slices(trace, trace.steps(), {})
    inside = sum(piece.ns for piece in cut if piece.path[0] == "Net_0")
    steps = sum(step.duration_us for step in trace.steps())
    assert inside == pytest.approx(steps * 1000, abs=10)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"schemaVersion": 1, "traceEvents": [{"ph": "X", "name": "a"}]}, "an event is malformed"),
        ({"schemaVersion": 1, "traceEvents": []}, "has no CPU ops"),
        ([{"cat": "Node", "ph": "X", "name": "n", "ts": 1, "dur": 1}], "has no model_run"),
        ([1, 2], "is not a trace"),
        ({"traceEvents": [], "ingot": {"runs": 5}}, "runs must be of type list"),
        ({"traceEvents": [], "ingot": {"memory": {"peak_rss_mb": "9"}}}, "'9' is not a number"),
        ({"traceEvents": [], "ingot": [1]}, "its header is no object"),
        (
            {"traceEvents": [{"ph": "X", "name": "a", "ts": float("nan")}]},
            "nan is not a number",
        ),
    ],
)
def test_what_is_no_trace(document: object, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ProfileError, match=sentence):
        read_trace(path)

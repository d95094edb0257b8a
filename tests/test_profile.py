"""`ingot profile`, end to end: traces that explain a run, and the sentences for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingot.profiling.runs.coverage import coverage
from ingot.profiling.trace import Trace, from_chrome, read_json
from tests.test_cli import ingot


def refusal(*arguments: object) -> str:
    """The one sentence with which a command ends."""
    result = ingot(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("ingot: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def read(path: Path) -> Trace:
    return from_chrome(read_json(path), str(path))


SHORT = ("--tokens", "1,2,3,4", "--new-tokens", 8, "--repeats", 1, "--threads", 1)


@pytest.fixture(scope="module")
def profiled(
    demo_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Trace]:
    path = tmp_path_factory.mktemp("profile") / "trace.json"
    result = ingot("profile", demo_package, *SHORT, "-o", path, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), read(path)


def test_every_call_has_its_module_and_cost(profiled: tuple[dict[str, Any], Trace]) -> None:
    _, trace = profiled
    assert [step.args["tokens"] for step in trace.steps()] == [4] + [1] * 7
    down = [
        e for e in trace.events if e.module == "model.layers.5.mlp.down_proj" and e.category == "op"
    ]
    assert len(down) == 8
    first, last = down[0].args, down[-1].args
    assert (first["phase"], first["layer"], first["step"]) == ("prefill", 5, 0)
    assert (last["phase"], last["layer"], last["step"]) == ("decode", 5, 7)
    assert first["inputs"][0]["shape"] == [4, 768]
    assert (first["flops"], last["flops"]) == (4 * 2 * 768 * 256, 2 * 768 * 256)
    assert last["read_bytes"] == 4 * (768 * 256 + 768)
    calls = [event for event in trace.events if event.category in ("kernel", "op")]
    assert all(event.args["predicted_us"] > 0 for event in calls)
    matched = sum(bool(event.module) for event in calls)
    assert matched >= 0.95 * len(calls)


def test_events_do_not_overlap(profiled: tuple[dict[str, Any], Trace]) -> None:
    _, trace = profiled
    (thread,) = {step.thread for step in trace.steps()}
    events = [e for e in trace.events if e.thread == thread and e.category != "step"]
    events.sort(key=lambda event: event.start_us)
    for one, other in zip(events, events[1:], strict=False):
        assert one.end_us <= other.start_us + 0.01


def test_report(profiled: tuple[dict[str, Any], Trace], demo_package: Path) -> None:
    result, trace = profiled
    assert result["name"] == str(demo_package)
    assert result["request"] == {"tokens": [1, 2, 3, 4], "new_tokens": 8}
    assert len(trace.header.result["tokens"]) == 8
    assert result["ceilings"].keys() == {"read_gb_s", "gflop_s"}
    assert result["tracing_overhead"].keys() == {"prefill", "decode"}
    assert result["untraced"]["decode_ms"] > 0
    assert result["steps"]["decode"]["count"] == 7
    names = {row["name"] for row in result["modules"]}
    assert {"lm_head", "model.layers.*.mlp.down_proj", "(host) sample", "(unnamed)"} <= names
    assert {"linear", "paged_attention", "generated code"} <= {r["name"] for r in result["ops"]}
    assert sum(row["name"].startswith("model.layers.") for row in result["layers"]) == 6
    for table in ("modules", "ops", "kernels", "layers"):
        shares = [row["decode"]["share"] for row in result[table] if "decode" in row]
        assert sum(shares) == pytest.approx(1)
    for phase in ("prefill", "decode"):
        assert result["coverage"][phase] == json.loads(json.dumps(coverage(trace, phase).to_dict()))


def test_most_of_the_time_has_a_name(profiled: tuple[dict[str, Any], Trace]) -> None:
    result, _ = profiled
    found = result["coverage"]["decode"]
    # The goal is 0.97; what another process takes between two events is no fault of theirs.
    assert found["share"] > 0.8
    assert found["gaps"]


def test_a_written_trace_gives_the_same_report(
    profiled: tuple[dict[str, Any], Trace], demo_package: Path, tmp_path: Path
) -> None:
    result, trace = profiled
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(trace.to_chrome()))
    again = json.loads(ingot("profile", demo_package, "--trace", path, "--json").stdout)
    for table in ("steps", "coverage", "modules", "ops", "kernels", "layers", "ceilings"):
        assert again[table] == result[table]


def test_tables(demo_package: Path) -> None:
    text = ingot("profile", demo_package, *SHORT).stdout
    for part in ("decode, by module", "prefill, by module", "by layer", "predicted", "lm_head"):
        assert part in text
    assert "has a name: calls" in text


def test_a_recorded_trace_is_explained(demo_package: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    ingot("run", demo_package, "--tokens", "1,2,3", "--max-new-tokens", 3, "--trace", raw)
    result = ingot("profile", demo_package, "--trace", raw, "--json")
    found = json.loads(result.stdout)
    assert found["steps"]["prefill"]["count"] == 1
    assert found["model"]["vocab_size"] == 4096
    assert found["ceilings"] == {}
    linear = next(row for row in found["ops"] if row["name"] == "linear")
    assert linear["prefill"]["calls"] == 19


def test_a_trace_is_whole_or_not_there(demo_package: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    ingot("run", demo_package, "--tokens", "1", "--max-new-tokens", 2, "--trace", raw)
    explain = ("profile", demo_package, "--trace", raw, "-o")
    assert "No space left" in refusal(*explain, "/dev/full")
    assert "no folder" in refusal(*explain, tmp_path / "missing" / "t.json")
    assert "cannot write" in refusal(*explain, tmp_path)
    assert list(tmp_path.iterdir()) == [raw]
    run = ("run", demo_package, "--tokens", "1", "--max-new-tokens", 2, "--json", "--trace")
    assert "has room" in ingot(*run, "/dev/full").stderr


def test_what_is_no_trace_of_the_package(demo_package: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    ingot("run", demo_package, "--tokens", "1,2", "--max-new-tokens", 2, "--trace", raw)
    document = json.loads(raw.read_text())
    document["ingot"]["model"]["hidden_size"] = 64
    raw.write_text(json.dumps(document))
    assert "is of another model: its hidden_size is 64, that of" in refusal(
        "profile", demo_package, "--trace", raw
    )
    del document["ingot"]  # nothing but the calls tells it
    document["traceEvents"] = [e for e in document["traceEvents"] if "attention" not in e["name"]]
    raw.write_text(json.dumps(document))
    assert "is not a run of this package" in refusal("profile", demo_package, "--trace", raw)
    raw.write_text(json.dumps(document)[:-100])
    assert "cut off" in refusal("profile", demo_package, "--trace", raw)
    raw.write_text('{"traceEvents": []}')
    assert "has no steps" in refusal("profile", demo_package, "--trace", raw)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--prompt", "a", "--tokens", "1"), "give one of --prompt and --tokens"),
        (("--text", "a"), "is of kind decoder: give --prompt or --tokens, not --text"),
        (("--new-tokens", 1), "--new-tokens must be at least 2"),
        (("--prompt-tokens", 0), "--prompt-tokens must be at least 1"),
        (("--prompt-tokens", 5000), "the prompt is too long"),
        (("--repeats", 0), "at least 1 repeat"),
        (("--tokens", ""), "--tokens '' is not a list of ids"),
    ],
)
def test_refusals(demo_package: Path, options: tuple[object, ...], sentence: str) -> None:
    assert sentence in refusal("profile", demo_package, *options)

"""Coverage and tables of a stored trace, by hand."""

from __future__ import annotations

from typing import Any

from ingot.profiling.runs.coverage import Gap, coverage, windows
from ingot.profiling.runs.summary import percentile, steps, summarise, table
from ingot.profiling.trace import Event, Header, Trace

COST = {"flops": 7_000_000, "read_bytes": 60_000_000, "written_bytes": 10_000_000}


# Times here are in milliseconds, so that sums are exact.
def event(name: str, category: str, start: float, ms: float, thread: int, **args: Any) -> Event:
    return Event(name, category, start * 1000, ms * 1000, thread, args)


def request(start: float, first: float, end: float) -> Event:
    return event("generate", "request", start, end - start, 1, first_token_us=first * 1000)


def step(start: float, end: float, phase: str) -> Event:
    return event("step", "step", start, end - start, 2, phase=phase)


def linear(start: float, ms: float, module: str, **args: Any) -> Event:
    return event("aoti_torch_cpu_linear", "op", start, ms, 2, module=module, **args)


# Submitted at 0, first token at 50, last at 150. Two layers of one linear; the host samples.
TRACE = Trace(
    Header(ceilings={"read_gb_s": 8.0, "gflop_s": 4.0}),
    [
        request(0, 50, 150),
        step(10, 45, "prefill"),
        linear(10, 20, "layers.0.fc"),
        linear(30, 15, "layers.1.fc"),
        event("sample", "host", 46, 6, 2),  # over the first token's time
        step(60, 95, "decode"),
        linear(60, 10, "layers.0.fc", **COST, predicted_us=8000, bound="memory"),
        event("wrapper", "host", 70, 5, 2, module="layers.1.fc"),
        linear(75, 20, "layers.1.fc", **COST, predicted_us=9000, bound="compute"),
        step(100, 140, "decode"),
        event("cpp_fused", "kernel", 100, 40, 2, module="norm"),
        event("sample", "host", 140, 10, 2),
        event("other thread", "host", 0, 150, 1),
    ],
)


def in_ms(trace: Trace) -> dict[str, list[tuple[float, float]]]:
    return {p: [(a / 1000, b / 1000) for a, b in w] for p, w in windows(trace).items()}


def test_windows_follow_the_request() -> None:
    assert in_ms(TRACE) == {"prefill": [(0, 50)], "decode": [(50, 150)]}


def test_without_a_request_the_steps_are_the_windows() -> None:
    alone = Trace(Header(), TRACE.events[1:])
    assert in_ms(alone) == {"prefill": [(10, 45)], "decode": [(60, 95), (100, 140)]}


def test_a_prompt_read_meanwhile_is_prefill() -> None:
    trace = Trace(Header(), [request(0, 10, 100), request(40, 60, 120)])
    assert in_ms(trace) == {
        "prefill": [(0, 10), (40, 60)],
        "decode": [(10, 40), (60, 120)],
    }


def test_coverage() -> None:
    found = coverage(TRACE, "decode")
    assert (found.wall_ms, found.unnamed_ms, found.share) == (100, 13, 0.87)
    assert (found.calls_ms, found.wrapper_ms, found.host_ms) == (70, 5, 12)
    assert found.gaps == (
        Gap("sample", "aoti_torch_cpu_linear", 1, 8),
        Gap("aoti_torch_cpu_linear", "cpp_fused", 1, 5),
    )
    assert coverage(TRACE, "prefill").gaps == (
        Gap("the start", "aoti_torch_cpu_linear", 1, 10),
        Gap("aoti_torch_cpu_linear", "sample", 1, 1),
    )
    assert coverage(Trace(Header(), []), "decode").share == 0


def test_table_by_module() -> None:
    rows = {row["name"]: row for row in summarise(TRACE)["modules"]}
    assert list(rows) == ["norm", "layers.*.fc", "(unnamed)", "(host) sample"]
    assert rows["layers.*.fc"]["decode"] == {
        "ms": 17.5,  # of two steps
        "share": 0.35,
        "calls": 1,
        "gb_s": 4,
        "gflop_s": 0.4,
        "gb_s_share": 0.5,
        "gflop_s_share": 0.1,
        "predicted_ms": 8.5,
        "bound": "compute",
    }
    assert rows["layers.*.fc"]["prefill"] == {"ms": 35, "share": 0.7, "calls": 2}
    assert rows["(host) sample"]["decode"] == {"ms": 6, "share": 0.12, "calls": 0}


def test_every_table_sums_to_the_wall_clock() -> None:
    tables = summarise(TRACE)
    for name in ("modules", "ops", "kernels", "layers"):
        for phase, wall in (("prefill", 50), ("decode", 50)):
            parts = [row[phase] for row in tables[name] if phase in row]
            assert abs(sum(part["ms"] for part in parts) - wall) < 1e-9
            assert abs(sum(part["share"] for part in parts) - 1) < 1e-9


def test_other_tables() -> None:
    tables = summarise(TRACE)
    assert [row["name"] for row in tables["ops"]] == [
        "generated code",
        "linear",
        "(unnamed)",
        "(host) sample",
        "(wrapper)",
    ]
    layers = ["layers.0", "layers.1", "norm", "(unnamed)", "(host)"]  # as they ran
    assert [row["name"] for row in tables["layers"]] == layers
    assert table(Trace(Header(), []), lambda event: event.name) == []


def test_steps() -> None:
    assert steps(TRACE)["decode"] == {
        "count": 2,
        "total_ms": 75,
        "p50_ms": 37.5,
        "p90_ms": 39.5,
        "p99_ms": 39.95,
    }
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([1.0], 99) == 1.0

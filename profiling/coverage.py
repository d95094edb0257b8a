"""Coverage: the share of the wall clock that lies under a named event, and where the rest is.

The clock runs from a request's submission to its first token (prefill) and from there to its last
(decode). What counts is what the steps' threads did meanwhile: calls of the graph, generated code
between them (`wrapper`) and the host's own events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .join import CALLS, WRAPPER
from .trace import Event, Trace

Window = tuple[float, float]  # microseconds


@dataclass(frozen=True)
class Gap:
    """Unnamed time between events of two names, summed over all such places."""

    after: str
    before: str
    count: int
    ms: float


@dataclass(frozen=True)
class Coverage:
    """Milliseconds; they sum to `wall_ms`."""

    wall_ms: float
    calls_ms: float
    wrapper_ms: float
    host_ms: float
    unnamed_ms: float
    gaps: tuple[Gap, ...]  # the largest first

    @property
    def share(self) -> float:
        return 1 - self.unnamed_ms / self.wall_ms if self.wall_ms else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {"share": self.share, **asdict(self)}


def windows(trace: Trace, phase: str) -> list[Window]:
    """When the phase ran, by the trace's requests; by its steps where none was recorded."""
    found = []
    for event in trace.events:
        if event.category == "request":
            first = float(event.args.get("first_token_us", event.end_us))
            found.append((event.start_us, first) if phase == "prefill" else (first, event.end_us))
    if not found:
        found = [(s.start_us, s.end_us) for s in trace.steps() if s.args.get("phase") == phase]
    return _united(found)


def coverage(trace: Trace, phase: str) -> Coverage:
    """Of a trace as `join` gives it; without a step, of nothing."""
    threads = {step.thread for step in trace.steps()}
    events = sorted(
        (e for e in trace.events if e.category in (*CALLS, "host") and e.thread in threads),
        key=lambda e: e.start_us,
    )
    times = {"calls": 0.0, "wrapper": 0.0, "host": 0.0}
    gaps: dict[tuple[str, str], tuple[int, float]] = {}
    wall = 0.0
    for begin, end in windows(trace, phase):
        wall += end - begin
        seen, last = begin, "the start"
        inside = [e for e in events if e.end_us > begin and e.start_us < end]
        for event in [*inside, Event("the end", "", end, 0.0)]:
            if event.start_us > seen:
                count, us = gaps.get((last, event.name), (0, 0.0))
                gaps[last, event.name] = (count + 1, us + event.start_us - seen)
            if event.category:
                times[_kind(event)] += max(0.0, min(event.end_us, end) - max(event.start_us, seen))
            seen, last = max(seen, event.end_us), event.name
    unnamed = sum(us for _, us in gaps.values())
    ordered = sorted(gaps.items(), key=lambda item: -item[1][1])
    return Coverage(
        wall / 1e3,
        *(times[kind] / 1e3 for kind in ("calls", "wrapper", "host")),
        unnamed / 1e3,
        tuple(Gap(*names, count, us / 1e3) for names, (count, us) in ordered),
    )


def _kind(event: Event) -> str:
    if event.category in CALLS:
        return "calls"
    return "wrapper" if event.name == WRAPPER else "host"


def _united(found: Sequence[Window]) -> list[Window]:
    """Without overlap, in order."""
    united: list[Window] = []
    for begin, end in sorted(found):
        if united and begin <= united[-1][1]:
            united[-1] = (united[-1][0], max(united[-1][1], end))
        elif end > begin:
            united.append((begin, end))
    return united

"""Coverage: the share of the wall clock that lies under a named event, and where the rest is.

The clock runs from a request's submission to its first token (prefill) and from there to its last
(decode). What counts is what the steps' threads did meanwhile: calls of the graph, generated code
between them (`wrapper`) and the host's own events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ..trace import Event, Trace
from .join import CALLS, WRAPPER

Window = tuple[float, float]  # microseconds
PHASES = ("prefill", "decode")


class Piece(NamedTuple):
    """A part of a phase's time: of an event, or None where nothing is named."""

    event: Event | None
    us: float
    after: str = ""  # of unnamed time: the events around it
    before: str = ""


@dataclass(frozen=True)
class Gap:
    """Unnamed time between events of two names, summed over all such places."""

    after: str
    before: str
    count: int
    ms: float


@dataclass(frozen=True)
class Coverage:
    """Milliseconds: all but `wall_ms` sum to it."""

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


def coverage(trace: Trace, phase: str) -> Coverage:
    """Of a trace as `join` gives it."""
    times = dict.fromkeys(("calls", "wrapper", "host", "unnamed"), 0.0)
    gaps: dict[tuple[str, str], tuple[int, float]] = {}
    for piece in pieces(trace, phase):
        times[_kind(piece.event)] += piece.us / 1e3
        if piece.event is None:
            count, ms = gaps.get((piece.after, piece.before), (0, 0.0))
            gaps[piece.after, piece.before] = (count + 1, ms + piece.us / 1e3)
    ordered = sorted(gaps.items(), key=lambda item: -item[1][1])
    return Coverage(
        wall_ms=sum(times.values()),
        calls_ms=times["calls"],
        wrapper_ms=times["wrapper"],
        host_ms=times["host"],
        unnamed_ms=times["unnamed"],
        gaps=tuple(Gap(*names, *found) for names, found in ordered),
    )


def pieces(trace: Trace, phase: str) -> Iterator[Piece]:
    """All of the phase's time, in order: what the steps' threads did, and what has no name."""
    threads = {step.thread for step in trace.steps()}
    events = sorted(
        (e for e in trace.events if e.category in (*CALLS, "host") and e.thread in threads),
        key=lambda e: e.start_us,
    )
    for begin, end in windows(trace)[phase]:
        seen, last = begin, "the start"
        for event in [e for e in events if e.end_us > begin and e.start_us < end]:
            if event.start_us > seen:
                yield Piece(None, event.start_us - seen, last, event.name)
                seen = event.start_us
            if event.end_us > seen:
                yield Piece(event, min(event.end_us, end) - seen)
                seen, last = event.end_us, event.name
        if end > seen:
            yield Piece(None, end - seen, last, "the end")


def windows(trace: Trace) -> dict[str, list[Window]]:
    """When each phase ran, by the trace's requests; by its steps where none was recorded.

    Of requests that overlap, what one reads of its prompt is prefill.
    """
    found: dict[str, list[Window]] = {phase: [] for phase in PHASES}
    for event in trace.events:
        if event.category == "request":
            first = float(event.args.get("first_token_us", event.end_us))
            found["prefill"].append((event.start_us, first))
            found["decode"].append((first, event.end_us))
    if not any(found.values()):
        for step in trace.steps():
            found[step.args.get("phase", "decode")].append((step.start_us, step.end_us))
    prefill = _united(found["prefill"])
    return {"prefill": prefill, "decode": list(_without(_united(found["decode"]), prefill))}


def _kind(event: Event | None) -> str:
    if event is None:
        return "unnamed"
    if event.category in CALLS:
        return "calls"
    return "wrapper" if event.name == WRAPPER else "host"


def _united(found: list[Window]) -> list[Window]:
    """Without overlap, in order."""
    united: list[Window] = []
    for begin, end in sorted(found):
        if united and begin <= united[-1][1]:
            united[-1] = (united[-1][0], max(united[-1][1], end))
        elif end > begin:
            united.append((begin, end))
    return united


def _without(found: list[Window], others: list[Window]) -> Iterator[Window]:
    for begin, end in found:
        for other_begin, other_end in others:
            if begin < other_end and other_begin < end:
                if begin < other_begin:
                    yield begin, other_begin
                begin = max(begin, other_end)
        if begin < end:
            yield begin, end

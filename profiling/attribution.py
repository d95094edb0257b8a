"""Whose time it is: a run's wall clock cut into slices, each with the module that it counts to.

docs/trace.md, "Time of a module", has the rule. Slices are whole nanoseconds that follow one
another without gap or overlap, so any way of adding them up gives the run's total exactly.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .trace import Event, Trace

UNMATCHED = "(unmatched)"
BEFORE = "before a step's first event"
AFTER = "after a step's last event"
BETWEEN = "between steps"
NAMELESS = "events of no module"

_WORK = ("kernel", "op", "host")  # categories of events whose time is a module's

Path = tuple[str, ...]  # ("model", "layers", "0"); what is unmatched: (UNMATCHED, BEFORE)


@dataclass(frozen=True)
class Slice:
    """Time that counts to one module. phase: of the step; what lies between two, the later's."""

    path: Path
    phase: str
    ns: int


def runs(trace: Trace) -> list[list[Event]]:
    """Step events, run by run: where their number `step` does not grow, another run begins."""
    found: list[list[Event]] = []
    for step in trace.steps():
        last = found[-1][-1].args.get("step", -1) if found else None
        if last is None or step.args.get("step", last + 1) <= last:
            found.append([])
        found[-1].append(step)
    return found


def median_run(trace: Trace) -> list[Event]:
    """The steps of the run whose length is the median (of an even number, the shorter one)."""
    ordered = sorted(runs(trace), key=lambda steps: steps[-1].end_us - steps[0].start_us)
    return ordered[(len(ordered) - 1) // 2] if ordered else []


def slices(trace: Trace, steps: list[Event], aliases: Mapping[str, str]) -> list[Slice]:
    """All of the time from the first step's start to the last one's end.

    aliases: names of modules to be replaced, with what lies inside them. Events on several threads
    count where they are alone or began first.
    """
    events = sorted((e for e in trace.events if e.category in _WORK), key=lambda e: e.start_us)
    starts = [event.start_us for event in events]
    found: list[Slice] = []
    seen = _ns(steps[0].start_us)
    for step in steps:
        phase = str(step.args.get("phase", ""))
        start, end = max(_ns(step.start_us), seen), max(_ns(step.end_us), seen)
        first, after = bisect_left(starts, step.start_us), bisect_left(starts, step.end_us)
        found.append(Slice((UNMATCHED, BETWEEN), phase, start - seen))
        found += _step(start, end, phase, events[first:after], aliases)
        seen = end
    return [piece for piece in found if piece.ns]


def _step(
    start: int, end: int, phase: str, events: list[Event], aliases: Mapping[str, str]
) -> Iterator[Slice]:
    """The time between two moments, in which these events lie."""
    seen = start
    for number, event in enumerate(events):
        if number == 0:
            begun = min(max(_ns(event.start_us), start), end)
            yield Slice((UNMATCHED, BEFORE), phase, begun - start)
            seen = begun
        until = min(max(_ns(event.end_us), seen), end)
        path = module_path(event.module, aliases) or (UNMATCHED, NAMELESS)
        yield Slice(path, phase, until - seen)  # the gap before the event is in it
        seen = until
    yield Slice((UNMATCHED, AFTER if events else BEFORE), phase, end - seen)


def module_path(module: str, aliases: Mapping[str, str]) -> Path:
    """A module's parts, aliases replaced, of itself or of what it is inside; () for none."""
    if not module:
        return ()
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        other = aliases.get(".".join(parts[:length]))
        if other is not None:
            return (*other.split("."), *parts[length:]) if other else tuple(parts[length:])
    return tuple(parts)


def layer(path: Path) -> Path:
    """The layer that a module is in: up to its first number; a module in no layer: all of it."""
    for index, part in enumerate(path):
        if part.isdecimal():
            return path[: index + 1]
    return path


def kind(path: Path) -> str:
    """The path with its numbers replaced, alike in all layers: "model.layers.*.mlp"."""
    return re.sub(r"(?<![^.])[0-9]+(?![^.])", "*", text(path))


def text(path: Path) -> str:
    return f"{path[0]}: {path[1]}" if path[0] == UNMATCHED and path[1:] else ".".join(path)


def _ns(us: float) -> int:
    return round(us * 1000)

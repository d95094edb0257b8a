"""The record of a compile or a run: named phases with durations and counters, and nothing else.

Measuring writes a record; pure functions turn records into files and tables. The form is that of
record.schema.json. Phases sum to the wall clock by construction: what no phase covers is shown as
`unattributed`.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from .. import process

UNATTRIBUTED = "unattributed"


@dataclass
class Event:
    """One phase. `start_s` counts from the record's start; None where only a duration is known."""

    name: str
    duration_s: float
    start_s: float | None = None
    counters: dict[str, float] = field(default_factory=dict)
    children: list[Event] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Event:
        children = [cls.from_dict(child) for child in data["children"]]
        return cls(**{**data, "children": children})


@dataclass
class Record:
    """`kind` is "compile" or "run"; `facts` are single values such as byte counts."""

    kind: str
    started_at: str
    wall_s: float
    environment: dict[str, str]
    facts: dict[str, Any]
    events: list[Event]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        return cls(**{**data, "events": [Event.from_dict(event) for event in data["events"]]})


def unattributed(record: Record) -> float:
    """Seconds of the wall clock that no phase covers."""
    return sum(event.duration_s for event in record.events if event.name == UNATTRIBUTED)


class Recorder:
    """Collects phases as they happen. Phases nest; `add` reports one whose duration is known.

    >>> recorder = Recorder("compile")
    >>> with recorder.phase("lowering"):
    ...     recorder.add("fusion", 0.0)
    >>> [event.name for event in recorder.finish().events]
    ['lowering', 'unattributed']
    """

    def __init__(self, kind: str, on_phase: Callable[[str], None] = lambda _: None) -> None:
        self.kind = kind
        self.facts: dict[str, Any] = {}
        self._on_phase = on_phase
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._start = time.perf_counter()
        self._top: list[Event] = []
        self._open: list[Event] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[Event]:
        """Time what runs inside, with its CPU seconds and the process's peak memory after it."""
        if not self._open:
            self._on_phase(name)
        begun, cpu = time.perf_counter(), _cpu_seconds()
        event = Event(name, 0.0, begun - self._start)
        self._siblings().append(event)
        self._open.append(event)
        try:
            yield event
        finally:
            self._open.pop()
            event.duration_s = time.perf_counter() - begun
            if event.children:
                event.children.append(_rest(event.duration_s, event.children))
            event.counters["cpu_s"] = _cpu_seconds() - cpu
            event.counters["peak_rss_mb"] = process.peak_rss_mb()

    def add(self, name: str, seconds: float) -> None:
        """A phase that something else timed, inside the phase now open."""
        self._siblings().append(Event(name, seconds))

    def note(self, name: str, value: Any) -> None:
        self.facts[name] = value

    def snapshot(self) -> Record:
        """The record so far; an open phase counts up to now as unattributed."""
        wall = time.perf_counter() - self._start
        closed = [event for event in self._top if event not in self._open]
        return Record(
            self.kind,
            self._started_at,
            wall,
            {"python": platform.python_version(), "cpus": str(len(os.sched_getaffinity(0)))},
            dict(self.facts),
            [*closed, _rest(wall, closed)],
        )

    def finish(self) -> Record:
        if self._open:
            raise RuntimeError(f"phase '{self._open[-1].name}' is still open")
        return self.snapshot()

    def _siblings(self) -> list[Event]:
        return self._open[-1].children if self._open else self._top


def _rest(whole: float, parts: list[Event]) -> Event:
    return Event(UNATTRIBUTED, max(whole - sum(part.duration_s for part in parts), 0.0))


def _cpu_seconds() -> float:
    """CPU time of this process and of the compilers it has waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)

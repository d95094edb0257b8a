"""The record of a compile or a run: named phases with durations and counters, and nothing else.

Measuring writes a record; pure functions turn records into files and tables. The form is that of
record.schema.json. Phases sum to the wall clock by construction: what no phase covers is shown as
`unattributed`, and what no part of a phase covers as its part `other`. What runs beside the phases
on other cores is listed for itself; the phases have what was waited for of it.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from .. import process

UNATTRIBUTED = "unattributed"
OTHER = "other"


@dataclass
class Event:
    """One phase. `start_s` counts from the record's start, where it began first; None of what
    remains. counters: `cpu_s`, of this process, and `peak_rss_mb`, the most memory up to its end.
    """

    name: str
    duration_s: float
    start_s: float | None = None
    counters: dict[str, float] = field(default_factory=dict)
    children: list[Event] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Event:
        children = [cls.from_dict(child) for child in data["children"]]
        return cls(**{**data, "children": children})


class Facts(TypedDict, total=False):
    """What a record says beside its phases: each is there once the export has come to it."""

    aliases: dict[str, str]  # a checkpoint's name of a module -> the model's, where they differ
    quantisation: list[dict[str, Any]]  # of each weight: how it is held, and the errors (quant)
    quality: dict[str, float]  # before and after quantisation, by measure
    cache_hit: bool  # the graph was compiled before, and nothing was compiled now
    cached: dict[str, bool]  # whether what is compiled once a machine was there (export/build.py)
    graph: dict[str, int]  # exported_nodes, lowered_nodes
    calls: list[dict[str, Any]]  # that a run makes, in order: profiling/calls.py's Call
    memory_plan: dict[str, Any]  # a run's temporaries and their peak (export/memory_plan.py)
    code_bytes: int
    weight_bytes: int
    nodes: int  # of an ONNX model's graph


@dataclass
class Record:
    """`kind` is "compile" or "run".

    events sum to wall_s. beside: what ran meanwhile, its `cpu_s` that of compilers.
    """

    kind: str
    started_at: str
    wall_s: float
    environment: dict[str, str]
    facts: Facts
    events: list[Event]
    beside: list[Event] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        events = {"events": data["events"], "beside": data.get("beside", [])}
        read = {name: [Event.from_dict(event) for event in found] for name, found in events.items()}
        return cls(**{**data, **read})


def unattributed(record: Record) -> float:
    """Seconds of the wall clock that no phase covers."""
    return sum(event.duration_s for event in record.events if event.name == UNATTRIBUTED)


class Recorder:
    """Collects phases as they happen. Phases nest, and one that runs again goes on.

    since: when the work began, by `process.now()`; what came before this call is its first phase,
    "start".

    >>> recorder = Recorder("compile")
    >>> with recorder.phase("lowering"), recorder.phase("fusion"):
    ...     pass
    >>> [event.name for event in recorder.finish().events]
    ['lowering', 'unattributed']
    """

    def __init__(
        self,
        kind: str,
        on_phase: Callable[[str], None] = lambda _: None,
        since: float | None = None,
    ) -> None:
        before = 0.0 if since is None else process.now() - since
        self.kind = kind
        self.facts: Facts = {}
        self._on_phase = on_phase
        began = datetime.now(UTC) - timedelta(seconds=before)
        self._started_at = began.isoformat(timespec="seconds")
        self._start = time.perf_counter() - before
        self._top: list[Event] = []
        self._open: list[_Open] = []
        self._beside: list[Event] = []
        if before:
            self._top.append(Event("start", before, 0.0, _counters(time.process_time())))

    @contextmanager
    def phase(self, name: str) -> Iterator[Event]:
        """Time what runs inside, with this process's CPU seconds and its peak memory up to then."""
        if not self._open:
            self._on_phase(name)
        siblings = self._open[-1].event.children if self._open else self._top
        event = next((e for e in siblings if e.name == name), None)
        begun = time.perf_counter()
        if event is None:
            event = Event(name, 0.0, begun - self._start, {"cpu_s": 0.0})
            siblings.append(event)
        self._open.append(_Open(event, begun, time.process_time()))
        try:
            yield event
        finally:
            now = self._open.pop().until_now()
            event.duration_s, event.counters = now.duration_s, now.counters

    def beside(self, name: str, begun: float, cpu_s: float) -> None:
        """Something that ran beside the phases, from `begun` (time.perf_counter) until now."""
        duration = time.perf_counter() - begun
        self._beside.append(Event(name, duration, begun - self._start, {"cpu_s": cpu_s}))

    def note(self, name: str, value: Any) -> None:
        """name: one of Facts'."""
        self.facts[name] = value  # type: ignore[literal-required]

    def snapshot(self) -> Record:
        """The record so far, open phases up to now."""
        wall = time.perf_counter() - self._start
        running = {id(part.event): part.until_now() for part in self._open}
        events = [_whole(event, running) for event in self._top]
        return Record(
            self.kind,
            self._started_at,
            wall,
            {"python": platform.python_version(), "cpus": str(len(os.sched_getaffinity(0)))},
            self.facts.copy(),
            [*events, _rest(UNATTRIBUTED, wall, events)],
            list(self._beside),
        )

    def finish(self) -> Record:
        if self._open:
            raise RuntimeError(f"phase '{self._open[-1].event.name}' is still open")
        return self.snapshot()


@dataclass
class _Open:
    """A phase that runs: since when, and the CPU seconds of the process then."""

    event: Event
    begun: float
    cpu_s: float

    def until_now(self) -> Event:
        spent = self.event.counters["cpu_s"] + time.process_time() - self.cpu_s
        duration = self.event.duration_s + time.perf_counter() - self.begun
        return replace(self.event, duration_s=duration, counters=_counters(spent))


def _whole(event: Event, running: Mapping[int, Event]) -> Event:
    """A copy whose parts, if it has any, sum to it."""
    parts = [_whole(child, running) for child in event.children]
    event = replace(running.get(id(event), event), children=parts)
    if parts:
        parts.append(_rest(OTHER, event.duration_s, parts))
    return event


def _rest(name: str, whole: float, parts: list[Event]) -> Event:
    return Event(name, max(whole - sum(part.duration_s for part in parts), 0.0))


def _counters(cpu_s: float) -> dict[str, float]:
    return {"cpu_s": cpu_s, "peak_rss_mb": process.peak_rss_mb()}

"""Run traces: Chrome trace events with a header that says what ran (docs/trace.md).

Every engine's trace has this one form, whoever recorded it, so that a comparison needs to know of
none of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import json_text
from .errors import ProfileError

FORMAT_VERSION = 1
ROOT = "(model)"  # the path of the outermost module, which has no name
_HEADER = "ingot"  # the file's key beside traceEvents; viewers pass over it


@dataclass
class Event:
    """Something that took time: category "step", "kernel", "op" or "host".

    start_us: of any one clock. args: docs/trace.md lists them; `module` is the path of the module
    that a kernel, op or host event serves, "" where none is known.
    """

    name: str
    category: str
    start_us: float
    duration_us: float
    thread: int = 0
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def end_us(self) -> float:
        return self.start_us + self.duration_us

    @property
    def module(self) -> str:
        return str(self.args.get("module", ""))

    def to_chrome(self, process: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "cat": self.category,
            "ph": "X",
            "pid": process,
            "tid": self.thread,
            "ts": self.start_us,
            "dur": self.duration_us,
            "args": self.args,
        }

    @classmethod
    def from_chrome(cls, event: dict[str, Any]) -> Event:
        """Raises KeyError, TypeError or ValueError for what is no event."""
        args = dict(event.get("args") or {})
        found = cls(
            str(event["name"]),
            str(event.get("cat", "")),
            float(event["ts"]),
            float(event.get("dur", 0)),
            int(event.get("tid", 0)),
            args,
        )
        work = (args.get(key, 0) for key in ("step", "flops", "read_bytes", "written_bytes"))
        _check_numbers([found.start_us, found.duration_us, *work], found.name)
        return found


@dataclass
class Counter:
    """A value over time, such as the process's memory: Chrome's "C" events."""

    name: str
    at_us: float
    values: dict[str, float]

    def to_chrome(self, process: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "ph": "C",
            "pid": process,
            "ts": self.at_us,
            "args": self.values,
        }


@dataclass
class Header:
    """What ran: engine and model, what it was asked and answered, and what that cost.

    engine: "ingot", "eager", "hf", "compile", "onnx"; "unknown" where a foreign profiler wrote the
    trace. model: the card of docs/format.md as far as it is known, and `quantization` and
    `kv_dtype` where weights or cache are coarser than its dtype. aliases: a checkpoint's names of
    modules that are one in this model, such as "...q_proj" -> "...qkv_proj". request: `tokens`
    [int], `new_tokens`. result: `tokens` [int], `logits` [float] after the prompt, or an encoder's
    `hidden`. runs: untraced ones' `total_ms`, `prefill_ms`, `decode_ms`. start_up: `load_ms`.
    memory: `peak_rss_mb`. ceilings: measured in the same run, `read_gb_s`, `gflop_s`.
    """

    engine: str = "unknown"
    name: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, float]] = field(default_factory=list)
    start_up: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Header:
        """Raises TypeError or ValueError where a field is unknown or not of its type."""
        found, default = cls(**data), cls()
        for name in cls.__dataclass_fields__:
            value, expected = getattr(found, name), type(getattr(default, name))
            if not isinstance(value, expected):
                raise TypeError(f"{name} must be of type {expected.__name__}")
        asked = (found.request.get("tokens", []), [found.request.get("new_tokens", 0)])
        lists = (*asked, *found.result.values())
        values = (found.start_up, found.memory, found.ceilings, *found.runs)
        for numbers in (*lists, *(value.values() for value in values)):
            _check_numbers(numbers, "header")
        if not all(isinstance(name, str) for name in found.aliases.values()):
            raise TypeError("aliases must be names")
        return found


def _check_numbers(values: Iterable[Any], where: str) -> None:
    for value in values:
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{where}: {value!r} is not a number")


@dataclass
class Trace:
    """threads: names of threads, by the numbers that events have."""

    header: Header
    events: list[Event]
    counters: list[Counter] = field(default_factory=list)
    threads: dict[int, str] = field(default_factory=dict)

    def steps(self) -> list[Event]:
        return sorted((e for e in self.events if e.category == "step"), key=lambda e: e.start_us)

    def to_chrome(self, process: int = 1) -> dict[str, Any]:
        return {
            "displayTimeUnit": "ms",
            _HEADER: {"format_version": FORMAT_VERSION, **asdict(self.header)},
            "traceEvents": [
                *(event.to_chrome(process) for event in self.events),
                *(counter.to_chrome(process) for counter in self.counters),
                _name("process_name", process, 0, self.header.name or self.header.engine),
                *(_name("thread_name", process, *thread) for thread in self.threads.items()),
            ],
        }


def _name(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    """Chrome's "M" event: what a viewer calls a process or a thread."""
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def from_chrome(document: Any, where: str) -> Trace:
    """A trace from Chrome's JSON, ours or another's. Raises ProfileError if it is none."""
    events = document.get("traceEvents") if isinstance(document, dict) else document
    if not isinstance(events, list) or not all(isinstance(e, dict) for e in events):
        raise ProfileError(f"{where} is not a trace: it has no list of traceEvents")
    header = document.get(_HEADER, {}) if isinstance(document, dict) else {}
    if not isinstance(header, dict):
        raise ProfileError(f"{where} is not a trace: its header is no object")
    if header.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ProfileError(
            f"{where} has trace format {header['format_version']}, this version reads"
            f" {FORMAT_VERSION}; record it again"
        )
    known = {k: v for k, v in header.items() if k != "format_version"}
    try:
        return Trace(
            Header.from_dict(known),
            [Event.from_chrome(e) for e in events if e.get("ph") == "X"],
            [
                Counter(str(e["name"]), float(e["ts"]), dict(e["args"]))
                for e in events
                if e.get("ph") == "C"
            ],
            {
                int(e["tid"]): str(e["args"]["name"])
                for e in events
                if e.get("ph") == "M" and e.get("name") == "thread_name"
            },
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ProfileError(
            f"{where} is not a trace: an event or the header is malformed ({error})"
        ) from error


def read_json(path: Path) -> Any:
    """Raises ProfileError, one sentence, for a file that is missing or not whole JSON."""
    try:
        return json_text.read(path)
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ProfileError(
            f"{path} is not JSON, or was cut off ({error}); record it again"
        ) from error

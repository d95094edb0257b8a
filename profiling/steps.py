"""The steps of one run, timed as they happen: for engines that run one sequence at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .trace import ROOT, Event

BLOCK_SIZE = 16  # tokens of a block of the paged cache


def now_us() -> float:
    """CLOCK_MONOTONIC, which the runtime's own traces are in too."""
    return time.monotonic_ns() / 1e3


def sizes(new: int, past: int = 0, *, blocks: int = 0, causal: bool = True) -> dict[str, int]:
    """A step's sizes as docs/trace.md names them: `new` tokens of one sequence, after `past`.

    blocks: of its cache's table. Of an encoder, which is not causal, every token is a row and sees
    all.
    """
    pairs = new * past + new * (new + 1) // 2 if causal else new * new
    return {
        "tokens": new,
        "sequences": 1,
        "rows": 1 if causal else new,
        "blocks": blocks,
        "context": past + new,
        "pairs": pairs,
    }


def step_event(number: int, start_us: float, end_us: float, counts: dict[str, int]) -> Event:
    """The event of a step whose sizes are `counts`; it reads a prompt if nothing lies before it."""
    phase = "prefill" if counts["context"] == counts["tokens"] else "decode"
    args = {"step": number, "phase": phase, **counts}
    return Event("step", "step", start_us, end_us - start_us, args=args)


class Steps:
    """Collects the step events of a run."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @contextmanager
    def step(self, counts: dict[str, int]) -> Iterator[None]:
        start = now_us()
        yield
        self.events.append(step_event(len(self.events), start, now_us(), counts))


class Calls:
    """The model's own calls: where in a step it is the model that runs, whatever of it is seen."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    def timed(self, model: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = now_us()
            result = model(*args, **kwargs)
            self._spans.append((start, now_us()))
            return result

        return call

    def around(self, step: Event, events: Sequence[Event]) -> Iterator[Event]:
        """Host events for what a step's call took before the first of its events and after the
        last: time of the model, and of no module in it."""
        args = {"module": ROOT, "step": step.args["step"], "phase": step.args["phase"]}
        for start, end in self._spans:
            if events and step.start_us <= start < step.end_us:
                first = min(event.start_us for event in events)
                last = max(event.end_us for event in events)
                thread = events[0].thread
                yield Event("call", "host", start, first - start, thread, args)
                yield Event("return", "host", last, end - last, thread, args)


def times(steps: list[Event]) -> dict[str, float]:
    """What a header's `runs` says of one run: milliseconds of its steps, in all and by phase."""

    def total(phase: str) -> float:
        return sum(e.duration_us for e in steps if e.args["phase"] == phase) / 1e3

    prefill, decode = total("prefill"), total("decode")
    return {"total_ms": prefill + decode, "prefill_ms": prefill, "decode_ms": decode}

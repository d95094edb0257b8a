"""A run's events and the calls of its graph, joined: each event gets its module and its cost.

Within a step the k-th kernel or op event of its thread is the k-th call of the compile record
(`facts.calls`). Names are compared, so that no trace is explained by another model's calls.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ..calls import Call, evaluate
from ..errors import ProfileError
from ..trace import Event, Trace

CALLS = ("kernel", "op")  # categories of events that are calls of the graph
WRAPPER = "wrapper"  # generated code between two calls: it makes and frees tensors
_LETTERS = {"T": "tokens", "B": "sequences", "R": "rows", "P": "blocks"}
_LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


def join(trace: Trace, calls: Sequence[Call]) -> Trace:
    """The trace with all that docs/trace.md says of kernel and op events, and with `wrapper` events
    for the time between them. Calls outside a step are left out: its beginning was not recorded.

    Raises ProfileError if the trace is of another graph than the calls.
    """
    events = [event for event in trace.events if event.category not in CALLS]
    for step, inside in inside_steps(trace):
        found = [event for event in inside if event.category in CALLS]
        check(found, calls, step)
        facts, scope = iter(enumerate(calls)), sizes(step)
        known = [
            replace(event, args={**event.args, **_facts(*next(facts), step, scope)})
            if event.category in CALLS
            else event
            for event in inside
        ]
        events += [event for event in known if event.category in CALLS]
        events += _wrappers(known, step)
    return replace(trace, events=sorted(events, key=lambda e: (e.start_us, -e.end_us)))


def inside_steps(trace: Trace) -> Iterator[tuple[Event, list[Event]]]:
    """Each step with what its thread did in it, in order."""
    threads: dict[int, list[Event]] = {}
    for event in sorted(trace.events, key=lambda e: e.start_us):
        if event.category in (*CALLS, "host"):
            threads.setdefault(event.thread, []).append(event)
    starts = {thread: [e.start_us for e in events] for thread, events in threads.items()}
    for step in trace.steps():
        own = starts.get(step.thread, [])
        first, after = bisect_left(own, step.start_us), bisect_left(own, step.end_us)
        yield step, threads.get(step.thread, [])[first:after]


def check(events: Sequence[Event], calls: Sequence[Call], step: Event) -> None:
    """Raises ProfileError unless the events of one step are the calls, in order."""
    where = f"step {step.args.get('step', '?')} of the trace"
    for number, (event, call) in enumerate(zip(events, calls, strict=False)):
        if event.name != call.name:
            raise ProfileError(
                f"{where} is not a run of this package: its call {number} is {event.name}, the"
                f" package's is {call.name}; give the package that made the trace"
            )
    if len(events) != len(calls):
        raise ProfileError(
            f"{where} is not a run of this package: it has {len(events)} calls, the package's"
            f" graph {len(calls)}; give the package that made the trace"
        )


def sizes(step: Event) -> dict[str, float]:
    """A step's sizes by the names that formulas have for them (`profiling.calls`)."""
    args = step.args
    names = {**_LETTERS, "context": "context", "pairs": "pairs"}
    found = {letter: args[name] for letter, name in names.items() if name in args}
    return {**found, **args.get("sizes", {})}


def layer(module: str) -> int | None:
    """The layer that a module is in: 3 of "model.layers.3.mlp"."""
    found = _LAYER.search(module)
    return int(found[1]) if found else None


def _facts(number: int, call: Call, step: Event, scope: Mapping[str, float]) -> dict[str, Any]:
    facts: dict[str, Any] = {"call": number, "module": call.module}
    if len(call.modules) > 1:
        facts["modules"] = list(call.modules)
    if (inside := layer(call.module)) is not None:
        facts["layer"] = inside
    facts |= _place(step)
    for name in ("inputs", "outputs"):
        facts[name] = [_tensor(tensor, scope) for tensor in getattr(call, name)]
    for name in ("flops", "read_bytes", "written_bytes"):
        if (value := _value(getattr(call, name), scope)) is not None:
            facts[name] = value
    return facts


def _wrappers(events: Sequence[Event], step: Event) -> Iterator[Event]:
    """What lies between a step's events, as time of the later one's module."""
    for before, event in pairwise(events):
        if (gap := event.start_us - before.end_us) > 0:
            args = _place(step)
            if event.module:
                args["module"] = event.module
            yield Event(WRAPPER, "host", before.end_us, gap, step.thread, args)


def _place(step: Event) -> dict[str, Any]:
    return {name: step.args[name] for name in ("step", "phase") if name in step.args}


def _tensor(tensor: Mapping[str, Any], scope: Mapping[str, float]) -> dict[str, Any]:
    """Sizes as numbers; one that the step does not say, such as the cache's, stays a formula."""
    shape = []
    for size in tensor["shape"]:
        value = size if isinstance(size, int) else _value(str(size), scope)
        shape.append(size if value is None else value)
    return {"dtype": tensor["dtype"], "shape": shape}


def _value(formula: str, scope: Mapping[str, float]) -> int | None:
    """None where it needs a size that the step does not say."""
    return _evaluated(formula, tuple(scope.items()))


@lru_cache(maxsize=4096)  # layers have the same formulas
def _evaluated(formula: str, scope: tuple[tuple[str, float], ...]) -> int | None:
    try:
        return round(evaluate(formula, dict(scope)))
    except ProfileError:
        return None

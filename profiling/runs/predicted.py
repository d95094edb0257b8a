"""What the roofline says of each call of a run, beside what the call took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..calls import Call, Cost
from ..roofline import Hardware, predict
from ..trace import Event, Trace
from .join import CALLS


def predicted(
    trace: Trace, calls: Sequence[Call], hardware: Hardware, kernel: Callable[[Call], str]
) -> Trace:
    """A trace of `join` with `predicted_us` and `bound` at the events whose cost is known.

    kernel: the name of a call's kernel, as `Hardware.kernels` has it.
    """
    kernels = [kernel(call) for call in calls]

    def of(event: Event) -> Event:
        args = event.args
        if event.category not in CALLS or "flops" not in args:
            return event
        cost = Cost(args["flops"], args.get("read_bytes", 0), args.get("written_bytes", 0))
        found = predict(cost, hardware, kernels[args["call"]])
        known = {"predicted_us": found.seconds * 1e6, "bound": found.bound}
        return replace(event, args={**args, **known})

    return replace(trace, events=[of(event) for event in trace.events])

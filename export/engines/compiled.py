"""`compile:CHECKPOINT`: our modules through torch.compile, with Inductor's C++ kernels.

Dynamo specialises sizes of one, so there are two graphs: of a prompt and of a single token. Traced
by torch.profiler, which sees each kernel and op; what it sees are the calls that Inductor
scheduled, in their order, and those know their modules (export/provenance.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.compile_fx import compile_fx
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from ... import process
from ...child import serve
from ...profiling.calls import Call
from ...profiling.engine import Request
from ...profiling.errors import ProfileError
from ...profiling.runs.join import join
from ...profiling.steps import Calls
from ...profiling.trace import Event, Header, Trace
from ..provenance import LOAD, scheduled
from .common import Forward, TorchEngine, Tracer, ragged

_OPTIONS = {
    "cpp.enable_kernel_profile": True,  # kernels tell the profiler of themselves
    "cpp.dynamic_threads": True,  # as many as the request says
    "fx_graph_cache": False,  # a graph from the cache would not be scheduled
}


class Compiled(TorchEngine):
    name = "compile"

    def load(self) -> None:
        self.model = self.source.load()
        self.graphs: list[list[Call]] = []
        self.ran: list[int] = []  # graphs of the run, a step each
        self.calls = Calls()
        self.compiled = torch.compile(self.model, backend=self._backend, fullgraph=True)
        self._warm: set[Request] = set()

    def begin(self, request: Request) -> Forward:
        """Compiles first what the request needs."""
        if request not in self._warm:
            begun = process.now()
            forward = ragged(self.source, self._with_dynamic_sizes, request)
            forward(list(request.tokens), 0)
            if request.new_tokens > 1:
                forward([0], len(request.tokens))
            self.header.start_up.setdefault("compile_ms", (process.now() - begun) * 1e3)
            self._warm.add(request)
        self.ran.clear()
        self.calls = Calls()
        return ragged(self.source, self.calls.timed(self.compiled), request)

    def tracer(self) -> KernelTracer:
        return KernelTracer(self)

    def _backend(self, graph: fx.GraphModule, inputs: list[Any]) -> Any:
        """Inductor, listened to."""
        with scheduled(self._shapes(graph), LOAD) as found:
            run: Any = compile_fx(graph, inputs, config_patches=_OPTIONS)
        number = len(self.graphs)
        self.graphs.append(list(map(_in_our_model, found.calls)))

        def call(*args: Any) -> Any:
            self.ran.append(number)
            return run(*args)

        return call

    def _with_dynamic_sizes(self, *inputs: Any) -> Tensor:
        """The compiled model; where it must be compiled, then for all sizes that vary."""
        for tensor, fact in zip(tree_leaves(inputs), self.contract.inputs, strict=True):
            for dim, size in enumerate(fact["shape"]):
                if isinstance(size, str):
                    torch._dynamo.maybe_mark_dynamic(tensor, dim)
        out: Tensor = self.compiled(*inputs)
        return out

    def _shapes(self, graph: fx.GraphModule) -> list[Sequence[str | int]]:
        """Of the graph's tensor inputs, by the letters of docs/format.md."""
        # By the names that Dynamo gives arguments. A run's table lists all blocks of its caches.
        letters = {
            f"L_{fact['name'].replace('.', '_')}_": [
                "P" if size == "num_blocks" else size for size in fact["shape"]
            ]
            for fact in self.contract.inputs
        }
        tensors = {
            node.target: node.meta["example_value"]
            for node in graph.graph.find_nodes(op="placeholder")
            if isinstance(node.meta["example_value"], Tensor)
        }
        return [letters.get(name, list(tensor.shape)) for name, tensor in tensors.items()]


def _in_our_model(call: Call) -> Call:
    """With the module's path as we write it; Dynamo's begins at the variable that has the model."""
    modules = [module.removeprefix("L['self'].") for module in (call.module, *call.modules)]
    return replace(call, module=modules[0], modules=tuple(modules[1:]))


class KernelTracer(Tracer):
    """What torch.profiler sees of the calls that Inductor scheduled, while it is open."""

    def __init__(self, engine: Compiled) -> None:
        self._engine = engine
        self._profile: Any = profile(activities=[ProfilerActivity.CPU])  # parts have no types

    def __enter__(self) -> None:
        self._profile.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._profile.__exit__(*error)

    def events(self, steps: list[Event]) -> list[Event]:
        """Raises ProfileError if what ran is not what was scheduled."""
        # The profiler's clock is that of the calendar, the steps' is monotonic.
        ahead_us = (time.time_ns() - time.monotonic_ns()) / 1e3
        seen = [
            Event(e.name(), "", e.start_ns() / 1e3 - ahead_us, e.duration_ns() / 1e3)
            for e in self._profile.profiler.kineto_results.events()
        ]
        seen.sort(key=lambda event: event.start_us)
        found: list[Event] = []
        for step, graph in zip(steps, self._engine.ran, strict=True):
            calls = self._engine.graphs[graph]
            inside = [e for e in seen if step.start_us <= e.start_us < step.end_us]
            known = [step, *_those_of(calls, iter(inside))]
            made = join(Trace(Header(), known), calls)
            found += [event for event in made.events if event is not step]
            found += self._engine.calls.around(step, known[1:])
        return found


def _those_of(calls: list[Call], seen: Iterator[Event]) -> Iterator[Event]:
    """The events of the calls: for each the next that has its name."""
    for call in calls:
        wanted = _seen_as(call)
        event = next((e for e in seen if e.name.endswith(wanted)), None)
        if event is None:
            raise ProfileError(f"the profiler saw no {wanted}, which was scheduled")
        category = "kernel" if call.kind == "kernel" else "op"
        yield replace(event, name=call.name, category=category)


def _seen_as(call: Call) -> str:
    """How the profiler names a call: "ingot::linear", or how its kernel's name ends."""
    if call.kind == "kernel":
        return call.name
    return "::".join(call.name.removeprefix("torch.ops.").split(".")[:2])


if __name__ == "__main__":
    serve(Compiled)

"""`compile:CHECKPOINT`: our modules through torch.compile, with Inductor's C++ kernels.

Dynamo specialises sizes of one, so there are two graphs: of a prompt and of a single token. Traced
by torch.profiler, which sees each kernel and op; what it sees are the calls that Inductor
scheduled, in their order, and those know their modules (export/provenance.py).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.compile_fx import compile_fx
from torch.profiler import ProfilerActivity, profile

from ... import process
from ...profiling.calls import Call
from ...profiling.engine import Request, serve
from ...profiling.errors import ProfileError
from ...profiling.trace import Event
from ..provenance import LOAD, scheduled
from .common import Forward, Tracer, TorchEngine, ragged

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
        self.compiled = torch.compile(
            self.model, backend=self._backend, dynamic=True, fullgraph=True
        )
        self._warm: set[Request] = set()

    def begin(self, request: Request) -> Forward:
        """Compiles first what the request needs."""
        if request not in self._warm:
            begun = process.now()
            forward = ragged(self.source, self.compiled, request)
            forward(list(request.tokens), 0)
            if request.new_tokens > 1:
                forward([0], len(request.tokens))
            self.header.start_up.setdefault("compile_ms", (process.now() - begun) * 1e3)
            self._warm.add(request)
        self.ran.clear()
        return ragged(self.source, self.compiled, request)

    def tracer(self) -> KernelTracer:
        return KernelTracer(self)

    def _backend(self, graph: fx.GraphModule, inputs: list[Any]) -> Any:
        with scheduled([], LOAD) as found:
            run: Any = compile_fx(graph, inputs, config_patches=_OPTIONS)
        number = len(self.graphs)
        self.graphs.append(found.calls)

        def call(*args: Any) -> Any:
            self.ran.append(number)
            return run(*args)

        return call

"""Provenance: which modules and source lines each call of a compiled graph serves, and its cost.

Inductor tells `set_kernel_post_grad_provenance_tracing` of each kernel and extern call as it writes
code for it. `scheduled` listens there, so it sees what a graph became whoever compiles it; `as_run`
puts what it saw into the order in which an AOTInductor wrapper calls it. Module paths come from the
`nn_module_stack` that the tracer left at the graph's nodes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import sympy
from torch.fx import Node

from ..custom_ops.cost import Cost, Load
from ..custom_ops.declare import NAMESPACE
from ..profiling.calls import Call
from .nodes import Sized, computes, cost_of, flops_of, modules_of, source_of, tensors_of

LOAD = Load(*sympy.symbols("context pairs"))  # of a step that says both, as formulas

_RECORD = r'RAIIAtenRecordFunctionHandle record_\w+\("(\w+)"'


@dataclass
class Schedule:
    """What a graph became: its calls in the order in which code was written for them, and of the
    graph then the number of nodes and the bytes of each buffer, sympy."""

    calls: list[Call] = field(default_factory=list)
    nodes: int = 0
    buffers: dict[str, Any] = field(default_factory=dict)


@contextmanager
def scheduled(shapes: Sequence[Sequence[str | int]], load: Load) -> Iterator[Schedule]:
    """While it is open, notes what Inductor schedules.

    shapes: of the graph's tensor inputs, in order, sizes that vary as formulas of the letters that
    the calls' formulas are to have. load: `LOAD`, or `Load()` for a graph whose sequences are of
    one length.
    """
    from torch._inductor import debug
    from torch._inductor.codegen import cpp, triton
    from torch._inductor.virtualized import V

    theirs = debug.set_kernel_post_grad_provenance_tracing
    found = Schedule()

    @cache
    def reader(graph: Any) -> _Reader:
        read = _Reader(graph, shapes, load)
        found.nodes += read.nodes
        found.buffers |= read.buffers
        return read

    def note(scheduled: Any, kernel_name: str, is_extern: bool = False) -> int | None:
        read = reader(V.graph)
        call = read.extern(scheduled) if is_extern else read.kernel(scheduled)
        found.calls.append(replace(call, name=kernel_name))
        return theirs(scheduled, kernel_name, is_extern)

    for module in (debug, cpp, triton):
        module.set_kernel_post_grad_provenance_tracing = note  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        for module in (debug, cpp, triton):
            module.set_kernel_post_grad_provenance_tracing = theirs  # type: ignore[attr-defined]


def as_run(calls: Sequence[Call], wrapper: str, kernels: str, device: str = "cpu") -> list[Call]:
    """The calls as generated code makes them in one run: one for each event, under its name.

    wrapper, kernels: C++ that was generated with `cpp.enable_kernel_profile`. An event that nothing
    was noted of has a call without a module. Of torch.cond the calls of both branches are here.
    """
    events = {"cpp_" + name.partition("cpp_")[2]: name for name in re.findall(_RECORD, kernels)}
    waiting = list(calls)
    found = []
    shim = f"aoti_torch_{device}_"
    for op, kernel in re.findall(rf"{_RECORD}|^\s*(cpp_\w+)\(", wrapper, re.MULTILINE):
        written = op or kernel
        call = next((c for c in waiting if written in (c.name, shim + c.name)), None)
        if call is not None:
            waiting.remove(call)
        known = call or Call(written, "kernel" if kernel else "fallback")
        found.append(replace(known, name=events.get(kernel, written)))
    return found


class _Reader:
    """Reads what a graph holds that Inductor has lowered."""

    def __init__(self, graph: Any, shapes: Sequence[Sequence[str | int]], load: Load) -> None:
        self._graph, self._load = graph, load
        self._order = {node: i for i, node in enumerate(graph.graph.nodes)}
        self._letters = _letters(graph, shapes)
        self._ops = {op.origin_node for op in graph.operations if _is_extern(op)}
        self.nodes = sum(node.op == "call_function" for node in self._order)
        self.buffers = {
            name: sympy.sympify(self._buffer(name).nbytes).subs(self._letters)
            for name, buffer in graph.name_to_buffer.items()
            if _is_tensor(buffer)
        }

    def kernel(self, scheduled: Sequence[Any]) -> Call:
        """A kernel of generated code, by the scheduler's nodes that are fused in it."""
        origins = {node for s in scheduled if s.node is not None for node in s.node.origins}
        nodes, prepared = self._computing(origins)
        read, written, read_bytes = self._traffic(scheduled)
        cost = Cost(sum(map(flops_of, nodes)), read_bytes, sum(b.nbytes for b in written))
        modules = modules_of(nodes) or modules_of(prepared)
        return self._call("kernel", nodes, modules, read, written, cost)

    def extern(self, kernel: Any) -> Call:
        """A call of an op, by its node in Inductor's IR."""
        node = kernel.origin_node or max(kernel.origins, key=self._order.__getitem__, default=None)
        if node is None:
            return Call("", "fallback")
        read, written = list(tensors_of((node.args, node.kwargs))), list(tensors_of(node))
        cost = cost_of(node, self._load, read, written)
        return self._call(_kind(node.target), [node], modules_of([node]), read, written, cost)

    def _call(
        self,
        kind: str,
        nodes: Sequence[Node],
        modules: Counter[str],
        read: Sequence[Sized],
        written: Sequence[Sized],
        cost: Cost,
    ) -> Call:
        return Call(
            name="",
            kind=kind,
            module=modules.most_common(1)[0][0] if modules else "",
            modules=tuple(modules),
            nodes=tuple(node.name for node in nodes),
            sources=tuple(dict.fromkeys(filter(None, map(source_of, nodes)))),
            inputs=tuple(map(self._fact, read)),
            outputs=tuple(map(self._fact, written)),
            flops=self._formula(cost.flops),
            read_bytes=self._formula(cost.read_bytes),
            written_bytes=self._formula(cost.written_bytes),
        )

    def _computing(self, origins: set[Node]) -> tuple[list[Node], list[Node]]:
        """The nodes, in order, whose arithmetic a kernel does, and the ops that it prepares for.

        Inductor counts among a kernel's origins also such an op, and views. A kernel that only
        moves data has nodes without arithmetic.
        """
        ordered = sorted(origins & self._order.keys(), key=self._order.__getitem__)
        prepared = [node for node in ordered if node in self._ops]
        others = [node for node in ordered if node not in self._ops]
        arithmetic = [node for node in others if computes(node)]
        return arithmetic or others, prepared

    def _traffic(self, scheduled: Sequence[Any]) -> tuple[list[Sized], list[Sized], Any]:
        """Buffers that a kernel reads and writes, and the bytes it reads: of each buffer as many as
        its loops touch. What lives inside the kernel alone counts for nothing."""
        inside = self._graph.removed_buffers | self._graph.inplaced_to_remove
        written = {dep.name for s in scheduled for dep in s.read_writes.writes}
        touched: dict[str, dict[Any, Any]] = {}
        for dep in (dep for s in scheduled for dep in s.read_writes.reads):
            if dep.name not in written | inside:
                touched.setdefault(dep.name, {})[getattr(dep, "index", None)] = self._touched(dep)
        read_bytes = 0
        for name, parts in touched.items():
            buffer = self._buffer(name)
            read_bytes += sympy.Min(sum(parts.values()), buffer.numel) * buffer.dtype.itemsize
        kept = sorted(written - inside)
        return [*map(self._buffer, touched)], [*map(self._buffer, kept)], read_bytes

    def _touched(self, dep: Any) -> Any:
        """Elements: the loops' sizes that the index depends on; all where a tensor is the index."""
        if not hasattr(dep, "index"):
            return self._buffer(dep.name).numel
        sizes = zip(dep.var_names, dep.size, strict=True)
        used = dep.index.free_symbols
        return math.prod(size for name, size in sizes if dep.is_indirect() or name in used)

    def _buffer(self, name: str) -> Sized:
        buffer: Any = self._graph.try_get_buffer(name)
        return Sized(tuple(buffer.get_size()), self._graph.get_dtype(name))

    def _fact(self, tensor: Sized) -> dict[str, Any]:
        sizes = (sympy.sympify(size) for size in tensor.shape)
        return {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": [int(s) if s.is_number else self._formula(s) for s in sizes],
        }

    def _formula(self, expression: Any) -> str:
        return str(sympy.sympify(expression).subs(self._letters))


def _letters(graph: Any, shapes: Sequence[Sequence[str | int]]) -> dict[Any, Any]:
    """The symbols that Inductor has for the sizes of the inputs -> what the shapes call them."""
    while getattr(graph, "parent", None) is not None:  # of a branch of torch.cond
        graph = graph.parent
    tensors = [box for box in graph.graph_inputs.values() if hasattr(box, "get_size")]
    found = {}
    for box, shape in zip(tensors, shapes, strict=True):
        for size, letter in zip(box.get_size(), shape, strict=True):
            if isinstance(size, sympy.Symbol):
                own = {symbol.name: symbol for symbol in symbols(letter)}  # sympy has an N, a beta
                found[size] = sympy.sympify(letter, locals=own)
    return found


def symbols(size: str | int) -> list[Any]:
    """The letters in a size of a contract."""
    return [sympy.Symbol(name) for name in re.findall(r"[A-Za-z_]\w*", str(size))]


def _is_extern(operation: Any) -> bool:
    from torch._inductor.ir import ExternKernel

    return isinstance(operation, ExternKernel)


def _is_tensor(buffer: Any) -> bool:
    from torch._inductor.ir import Layout

    return isinstance(buffer.get_output_spec(), Layout)


def _kind(target: Any) -> str:
    from torch._inductor import config

    ours = getattr(target, "namespace", "") == NAMESPACE
    return "op" if ours or target in config.aot_inductor.custom_ops_to_c_shims else "fallback"

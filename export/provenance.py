"""Provenance: which modules and source lines each call of a compiled graph serves, and its cost.

Inductor tells `set_kernel_post_grad_provenance_tracing` of each kernel and extern call as it writes
code for it. `scheduled` listens there, so it sees what a graph became whoever compiles it; `as_run`
puts what it saw into the order in which an AOTInductor wrapper calls it. Module paths come from the
`nn_module_stack` that the tracer left at the graph's nodes.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import sympy
import torch
from torch.fx import Node

from ..custom_ops.cost import Cost, Load
from ..custom_ops.declare import NAMESPACE, OPS
from ..profiling.calls import Call

LOAD = Load(*sympy.symbols("context pairs"))  # of a step that says both, as formulas

_PACKAGE = Path(__file__).parents[1]
_TORCH = str(Path(torch.__file__).parent)
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_RECORD = r'RAIIAtenRecordFunctionHandle record_\w+\("(\w+)"'
_SHIM = "aoti_torch_cpu_"
_POINTWISE, _REDUCTION = torch.Tag.pointwise, getattr(torch.Tag, "reduction", None)


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
    from torch._inductor.codegen import cpp
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

    for module in (debug, cpp):
        module.set_kernel_post_grad_provenance_tracing = note  # type: ignore[attr-defined]
    try:
        yield found
    finally:
        for module in (debug, cpp):
            module.set_kernel_post_grad_provenance_tracing = theirs  # type: ignore[attr-defined]


def as_run(calls: Sequence[Call], wrapper: str, kernels: str) -> list[Call]:
    """The calls as generated code makes them in one run: one for each event, under its name.

    wrapper, kernels: C++ that was generated with `cpp.enable_kernel_profile`. An event that nothing
    was noted of has a call without a module. Of torch.cond the calls of both branches are here.
    """
    events = {"cpp_" + name.partition("cpp_")[2]: name for name in re.findall(_RECORD, kernels)}
    waiting = list(calls)
    found = []
    for op, kernel in re.findall(rf"{_RECORD}|^\s*(cpp_\w+)\(", wrapper, re.MULTILINE):
        written = op or kernel
        call = next((c for c in waiting if written in (c.name, _SHIM + c.name)), None)
        if call is not None:
            waiting.remove(call)
        known = call or Call(written, "kernel" if kernel else "fallback")
        found.append(replace(known, name=events.get(kernel, written)))
    return found


class _Sized(NamedTuple):
    """A tensor as costs see it, its sizes sympy expressions."""

    shape: tuple[Any, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> Any:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> Any:
        return self.numel * self.dtype.itemsize


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
        cost = Cost(sum(map(_flops, nodes)), read_bytes, sum(b.nbytes for b in written))
        modules = _modules(nodes) or _modules(prepared)
        return self._call("kernel", nodes, modules, read, written, cost)

    def extern(self, kernel: Any) -> Call:
        """A call of an op, by its node in Inductor's IR."""
        node = kernel.origin_node or max(kernel.origins, key=self._order.__getitem__, default=None)
        if node is None:
            return Call("", "fallback")
        read, written = list(_tensors((node.args, node.kwargs))), list(_tensors(node))
        cost = _cost(node, self._load, read, written)
        return self._call(_kind(node.target), [node], _modules([node]), read, written, cost)

    def _call(
        self,
        kind: str,
        nodes: Sequence[Node],
        modules: Counter[str],
        read: Sequence[_Sized],
        written: Sequence[_Sized],
        cost: Cost,
    ) -> Call:
        return Call(
            name="",
            kind=kind,
            module=modules.most_common(1)[0][0] if modules else "",
            modules=tuple(modules),
            nodes=tuple(node.name for node in nodes),
            sources=tuple(dict.fromkeys(filter(None, map(_source, nodes)))),
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
        arithmetic = [node for node in others if _tags(node) & {_POINTWISE, _REDUCTION}]
        return arithmetic or others, prepared

    def _traffic(self, scheduled: Sequence[Any]) -> tuple[list[_Sized], list[_Sized], Any]:
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

    def _buffer(self, name: str) -> _Sized:
        buffer: Any = self._graph.try_get_buffer(name)
        return _Sized(tuple(buffer.get_size()), self._graph.get_dtype(name))

    def _fact(self, tensor: _Sized) -> dict[str, Any]:
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


def _tags(node: Node) -> set[Any]:
    return set(getattr(node.target, "tags", ()))


def _kind(target: Any) -> str:
    from torch._inductor import config

    ours = getattr(target, "namespace", "") == NAMESPACE
    return "op" if ours or target in config.aot_inductor.custom_ops_to_c_shims else "fallback"


def _module(node: Node) -> str:
    """Its path in the model; "" for the model's own forward."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _modules(nodes: Sequence[Node]) -> Counter[str]:
    return Counter(filter(None, map(_module, nodes)))


def _source(node: Node) -> str:
    """file.py:line of the innermost frame not of PyTorch, ours as they lie in this package."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    frames = [frame for frame in frames if not frame[0].startswith((_TORCH, "<"))]
    if not frames:
        return ""
    file, line = frames[-1]
    roots = [str(_PACKAGE), *sorted(filter(None, sys.path), key=len, reverse=True)]
    inside = (Path(file).relative_to(r) for r in roots if Path(file).is_relative_to(r))
    return f"{next(inside, Path(Path(file).name))}:{line}"


def _tensors(value: Any) -> Iterator[_Sized]:
    """The tensors of a node, or among its arguments, each node once."""
    nodes: dict[Node, None] = {}
    torch.fx.node.map_arg(value, lambda node: nodes.setdefault(node))
    for node in nodes:
        values = node.meta.get("val")
        for tensor in values if isinstance(values, list | tuple) else (values,):
            if isinstance(tensor, torch.Tensor):
                yield _sized(tensor)


def _sized(tensor: torch.Tensor) -> _Sized:
    return _Sized(tuple(map(_expression, tensor.shape)), tensor.dtype)


def _expression(size: Any) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else size


def _arguments(node: Node) -> list[Any]:
    """Of an op's call, in the order of its schema, tensors as costs see them."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else []
    values = [*node.args, *(node.kwargs.get(name) for name in names[len(node.args) :])]

    def seen(value: Any) -> Any:
        if not isinstance(value, Node):
            return value
        return next(_tensors(value), None) or _expression(value.meta.get("val"))

    return [seen(value) for value in values]


def _cost(node: Node, load: Load, read: Sequence[_Sized], written: Sequence[_Sized]) -> Cost:
    """As an op of ours declares it; of another, every tensor once and no arithmetic known."""
    target: Any = node.target
    if getattr(target, "namespace", "") == NAMESPACE:
        return OPS[target._schema.name.partition("::")[2]].cost(load, *_arguments(node))
    return Cost(0, sum(t.nbytes for t in read), sum(t.nbytes for t in written))


def _flops(node: Node) -> Any:
    """One an element: of what a pointwise node gives, of what a reduction takes."""
    tags = _tags(node)
    if _POINTWISE in tags:
        return sum(tensor.numel for tensor in _tensors(node))
    if _REDUCTION in tags:
        return sum(tensor.numel for tensor in _tensors(node.args[0]))
    return 0

"""What a node of a graph says of itself: its module and source line, its tensors as costs see them,
and what it computes. Sizes are sympy expressions.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.fx import Node

from ..custom_ops.cost import Cost, Load
from ..custom_ops.declare import NAMESPACE, OPS

_PACKAGE = Path(__file__).parents[1]
_TORCH = str(Path(torch.__file__).parent)
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_POINTWISE, _REDUCTION = torch.Tag.pointwise, getattr(torch.Tag, "reduction", None)


class Sized(NamedTuple):
    """A tensor as costs see it, its sizes sympy expressions."""

    shape: tuple[Any, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> Any:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> Any:
        return self.numel * self.dtype.itemsize


def computes(node: Node) -> bool:
    """Whether it does arithmetic on elements; else it moves data."""
    return bool(_tags(node) & {_POINTWISE, _REDUCTION})


def _module(node: Node) -> str:
    """Its path in the model; "" for the model's own forward."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def modules_of(nodes: Sequence[Node]) -> Counter[str]:
    """How many of the nodes each module has; those of the model's own forward have none."""
    return Counter(filter(None, map(_module, nodes)))


def source_of(node: Node) -> str:
    """file.py:line of the innermost frame not of PyTorch, ours as they lie in this package."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    frames = [frame for frame in frames if not frame[0].startswith((_TORCH, "<"))]
    if not frames:
        return ""
    file, line = frames[-1]
    roots = [str(_PACKAGE), *sorted(filter(None, sys.path), key=len, reverse=True)]
    inside = (Path(file).relative_to(r) for r in roots if Path(file).is_relative_to(r))
    return f"{next(inside, Path(Path(file).name))}:{line}"


def tensors_of(value: Any) -> Iterator[Sized]:
    """The tensors of a node, or among its arguments, each node once."""
    nodes: dict[Node, None] = {}
    torch.fx.node.map_arg(value, lambda node: nodes.setdefault(node))
    for node in nodes:
        values = node.meta.get("val")
        for tensor in values if isinstance(values, list | tuple) else (values,):
            if isinstance(tensor, torch.Tensor):
                yield _sized(tensor)


def _sized(tensor: torch.Tensor) -> Sized:
    return Sized(tuple(map(_expression, tensor.shape)), tensor.dtype)


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
        return next(tensors_of(value), None) or _expression(value.meta.get("val"))

    return [seen(value) for value in values]


def cost_of(node: Node, load: Load, read: Sequence[Sized], written: Sequence[Sized]) -> Cost:
    """As an op of ours declares it; of another, every tensor once and no arithmetic known."""
    target: Any = node.target
    if getattr(target, "namespace", "") == NAMESPACE:
        return OPS[target._schema.name.partition("::")[2]].cost(load, *_arguments(node))
    return Cost(0, sum(t.nbytes for t in read), sum(t.nbytes for t in written))


def flops_of(node: Node) -> Any:
    """One an element: of what a pointwise node gives, of what a reduction takes."""
    tags = _tags(node)
    if _POINTWISE in tags:
        return sum(tensor.numel for tensor in tensors_of(node))
    if _REDUCTION in tags:
        return sum(tensor.numel for tensor in tensors_of(node.args[0]))
    return 0


def _tags(node: Node) -> set[Any]:
    return set(getattr(node.target, "tags", ()))

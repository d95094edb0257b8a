"""What a compiled graph does in one run: its calls in order, each with its module and its cost.

Export writes the list into the compile record (`facts.calls`); a run's k-th kernel or op event is
the k-th call. Costs are formulas over the sizes of a step:

    T  new tokens      B  sequences      P  blocks in the longest block table      R  logit rows
    context  tokens whose keys and values are read, summed over the sequences
    pairs    (new token, token it sees) pairs, summed over the sequences: attention's work
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ProfileError


@dataclass(frozen=True)
class Call:
    """One kernel or op call of the graph.

    name: as run events have it. kind: "kernel" of generated code, "op" of ours, "fallback". module:
    the one that its time counts to; modules: all that it serves, fused. nodes: the graph's, that
    became it. sources: "file.py:line". inputs, outputs: {"dtype", "shape"}, sizes as numbers or
    formulas. flops, read_bytes, written_bytes: formulas.
    """

    name: str
    kind: str
    module: str = ""
    modules: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    inputs: tuple[dict[str, Any], ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()
    flops: str = "0"
    read_bytes: str = "0"
    written_bytes: str = "0"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Call:
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        return cls(**fields)


def own_name(name: str) -> str:
    """An op's own name, "linear", of what generated code calls: "aoti_torch_cpu_linear"."""
    return re.sub(r"^aoti_torch_(cpu|cuda)_", "", name)


def calls_of(record: Mapping[str, Any], where: object, variant: str | None = None) -> list[Call]:
    """Of a package's compile record, and of one of its variants; None: the first. Raises
    ProfileError where it has none."""
    facts = record.get("facts", {})
    own = facts.get("variants", {}).get(variant, {})
    found = own.get("calls", facts.get("calls"))
    if not found:
        raise ProfileError(f"{where} was exported before calls were recorded; export it again")
    return [Call.from_dict(call) for call in found]


@dataclass(frozen=True)
class Cost:
    """Arithmetic and traffic of one call in one step."""

    flops: float
    read_bytes: float
    written_bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.read_bytes + other.read_bytes,
            self.written_bytes + other.written_bytes,
        )


def cost(call: Call, sizes: Mapping[str, float]) -> Cost:
    """The call's cost in a step of these sizes. Raises ProfileError."""
    return Cost(*(evaluate(f, sizes) for f in (call.flops, call.read_bytes, call.written_bytes)))


_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {"Min": min, "Max": max, "ceiling": math.ceil}


def evaluate(formula: str, sizes: Mapping[str, float]) -> float:
    """A formula's value: numbers, names of `sizes`, + - * / // % **, Min, Max, ceiling.

    Raises ProfileError for anything else: a package's formulas are a stranger's.
    """

    def value(node: ast.AST) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)  # of floats no power is too long to compute
            case ast.Name(id=name) if name in sizes:
                return float(sizes[name])
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name), args=args) if name in _FUNCTIONS:
                return _FUNCTIONS[name](*map(value, args))
        raise ProfileError(f"'{formula}' is not a formula over {', '.join(sizes)}")

    try:
        return value(ast.parse(formula, mode="eval").body)
    except (SyntaxError, ArithmeticError, TypeError) as error:
        raise ProfileError(f"'{formula}' cannot be computed: {error}") from error

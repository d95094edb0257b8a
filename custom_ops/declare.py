"""`declare`: an operator's one declaration; torch's registration and the C side derive from it.

    declare(schema="linear(Tensor x, ...) -> Tensor", doc=__doc__, fake=fake, ...)

registers `torch.ops.ingot.linear` with a fake kernel for tracing and an eager implementation that
calls `ingot_op_linear` in libingot_ops.so.1, or `ingot_cuda_op_linear` in libingot_ops_cuda.so.1.
`csrc/generate.py` reads the same call at build time, so the schema must be a literal string.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .cost import Cost
from .eager import eager
from .schema import Schema, parse

NAMESPACE = "ingot"
OPS: dict[str, Op] = {}
_library = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Case:
    """One call of an op, for correctness tests, opcheck, export tests and benchmarks alike.

    `make(generator)` builds the arguments anew: an op may mutate them.
    """

    name: str
    make: Callable[[torch.Generator], tuple[Any, ...]]


@dataclass(frozen=True)
class Op:
    """What one `declare` call says."""

    schema: Schema
    doc: str
    fake: Callable[..., Any]
    reference: Callable[..., Any]
    cases: Sequence[Case]
    cost: Callable[..., Cost]
    rounded: Callable[..., tuple[Any, ...]]
    rounding: Callable[..., float]

    @property
    def overload(self) -> torch._ops.OpOverload:
        """The registered operator, such as `torch.ops.ingot.linear.default`."""
        packet = getattr(getattr(torch.ops, NAMESPACE), self.schema.name)
        return packet.default  # type: ignore[no-any-return]


def _as_they_are(_level: str, *arguments: Any) -> tuple[Any, ...]:
    return arguments


def _none(_level: str, *_arguments: Any) -> float:
    return 0.0


def declare(
    *,
    schema: str,
    doc: str | None,
    fake: Callable[..., Any],
    reference: Callable[..., Any],
    cases: Sequence[Case],
    cost: Callable[..., Cost],
    rounded: Callable[..., tuple[Any, ...]] = _as_they_are,
    rounding: Callable[..., float] = _none,
) -> Op:
    """Registers an op under the namespace `ingot` and returns its declaration.

    schema: a literal string in the grammar of `schema.py`.
    doc: shapes, dtypes, formula and source; a module that holds one op passes its own docstring.
    fake: the outputs' shapes and dtypes from the inputs', for tracing.
    reference: the formula in plain PyTorch with the op's signature, computed in the dtype of the
        floating-point inputs, float64 too. It mutates what the op mutates.
    cases: what tests and benchmarks iterate over.
    cost: a call's arithmetic and traffic from the step's `Load` and the arguments (cost.py).
    rounded: the arguments, after the name of an ISA level or "cuda", as the kernels of that level
        round them before they compute: a test's tolerance follows from the reference of these.
    rounding: of the same arguments, how much the level's own rounding while it computes may add to
        an element's error: 0 where that is no more than float32's.
    """
    parsed = parse(schema)
    if parsed.name in OPS:
        raise ValueError(f"op {parsed.name!r} is declared twice; a changed schema gets a new name")
    op = Op(parsed, doc or "", fake, reference, cases, cost, rounded, rounding)
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    for key in ("CPU", "CUDA"):
        _library.impl(parsed.name, eager(parsed), key)  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"{NAMESPACE}::{parsed.name}", fake, lib=_library)
    OPS[parsed.name] = op
    return op

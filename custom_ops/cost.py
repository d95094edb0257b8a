"""What a call of an op costs: the arithmetic and the memory traffic that it cannot do without.

Each op's module has a `cost`, a function of the step's `Load` and of the call's own arguments. It
looks at their shapes and dtypes alone and uses plain arithmetic, so it takes tensors on the meta
device (numbers come out) and tensors whose sizes are sympy expressions (formulas come out).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Load(NamedTuple):
    """What shapes do not say of a step. None, None: all sequences are of one length, without a
    past.

    context: tokens whose keys and values are read, summed over the sequences, new ones among them.
    pairs: (new token, token it sees) pairs, summed over the sequences.
    """

    context: Any = None
    pairs: Any = None


class Cost(NamedTuple):
    """flops: a multiplication and an addition are two. Bytes: every tensor once, as if caches were
    large enough for one call and empty before it."""

    flops: Any
    read_bytes: Any
    written_bytes: Any


def nbytes(*tensors: Any) -> Any:
    """Bytes of the elements; of None, nothing."""
    return sum(math.prod(t.shape) * t.dtype.itemsize for t in tensors if t is not None)


def least(a: Any, b: Any) -> Any:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return min(a, b)
    import sympy

    return sympy.Min(a, b)

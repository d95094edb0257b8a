"""attention_bf16: attention that may round to bfloat16, as torch's of bfloat16 tensors does.

    q [T, Hq, D], k, v [T, Hkv, D] float32, D contiguous, Hq a multiple of Hkv, D <= 256
    query_start [B + 1] int64
    -> [T, Hq, D] float32

The formula is that of `attention`. With Intel AMX, queries times the scale, k, v and the softmax
weights are rounded to bfloat16 before they are multiplied; the sums are float32, and those of the
weights are of what is not rounded. Elsewhere nothing is rounded.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .attention import CASES, cost, fake, reference
from .declare import declare


def rounded(
    level: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    query_start: torch.Tensor,
    scale: float,
) -> tuple[Any, ...]:
    """q is multiplied by what its scores, as powers of 2, are, and then rounded."""
    if level != "x86-64-v4-amx":
        return q, k, v, query_start, scale
    factor = scale * math.log2(math.e)
    q, k, v = (x.bfloat16().to(x.dtype) for x in (q * factor, k, v))
    return q / factor, k, v, query_start, scale


def rounding(
    level: str,
    _q: torch.Tensor,
    _k: torch.Tensor,
    v: torch.Tensor,
    _query_start: torch.Tensor,
    _scale: float,
) -> float:
    """Each softmax weight w is rounded by at most u w, u half of bfloat16's epsilon: an output, the
    sum of w v over the sum of w, moves by at most u times the largest v."""
    if level != "x86-64-v4-amx" or v.numel() == 0:
        return 0.0
    return torch.finfo(torch.bfloat16).eps / 2 * v.abs().max().item()


declare(
    schema="attention_bf16(Tensor q, Tensor k, Tensor v, Tensor query_start, float scale) "
    "-> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference,
    cases=CASES,
    cost=cost,
    rounded=rounded,
    rounding=rounding,
)

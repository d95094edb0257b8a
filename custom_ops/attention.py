"""attention: every token of a sequence sees every other, over a ragged batch.

    q [T, Hq, D], k, v [T, Hkv, D] float32, D contiguous, Hq a multiple of Hkv, D <= 256
    query_start [B + 1] int64
    -> [T, Hq, D] float32

Sequence b owns the tokens `query_start[b] .. query_start[b + 1]`:

    out = softmax(scale * q K^T) V        each query head with KV head  head // (Hq / Hkv)

Tokens beyond query_start[B] give zeros. Raises RuntimeError if a shape, dtype or stride is not as
above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .cost import Cost, Load, nbytes
from .declare import Case, declare


def reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, query_start: torch.Tensor, scale: float
) -> torch.Tensor:
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    group = q.shape[1] // k.shape[1]
    starts = query_start.tolist()
    for begin, end in zip(starts, starts[1:], strict=False):
        keys = k[begin:end].repeat_interleave(group, 1)
        values = v[begin:end].repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", q[begin:end], keys) * scale
        out[begin:end] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)
    return out


def fake(q: torch.Tensor, *_: object) -> torch.Tensor:
    return q.new_empty(q.shape)


def cost(load: Load, q: Any, k: Any, v: Any, query_start: Any, scale: Any) -> Cost:
    """Q K^T and weights V; a step that does not say `pairs` has sequences of one length."""
    tokens, heads, dim = q.shape
    pairs = load.pairs
    if pairs is None:
        pairs = tokens * tokens / (query_start.shape[0] - 1)
    return Cost(4 * pairs * heads * dim, nbytes(q, k, v, query_start), nbytes(q))


def _case(
    name: str,
    lengths: Sequence[int],
    q_heads: int = 4,
    kv_heads: int = 4,
    dim: int = 32,
    padding: int = 0,
    strided: bool = False,
) -> Case:
    """strided: q, k and v are slices of one tensor [T, heads, D + 3]."""

    def make(generator: torch.Generator) -> tuple[object, ...]:
        starts = torch.tensor([0, *lengths]).cumsum(0)
        tokens, heads = sum(lengths) + padding, q_heads + 2 * kv_heads
        qkv = torch.randn(tokens, heads, dim + 3 * strided, generator=generator)[..., :dim]
        q, k, v = torch.split(qkv, [q_heads, kv_heads, kv_heads], 1)
        if not strided:
            q, k, v = (x.clone(memory_format=torch.contiguous_format) for x in (q, k, v))
        return q, k, v, starts, dim**-0.5

    return Case(name, make)


CASES = [
    _case("one", [1], q_heads=1, kv_heads=1, dim=1),
    _case("ragged", [37, 1, 16, 0, 100, 17]),
    _case("strided", [5, 40], strided=True),
    _case("padded", [9, 20], padding=6),
    _case("gqa-dim40", [33, 7], q_heads=6, kv_heads=2, dim=40),
    _case("dim256", [19], q_heads=2, kv_heads=1, dim=256),
    _case("dim7", [50, 3], dim=7),
    _case("nothing", []),
    _case("padding-only", [0], padding=3),
    _case("vit", [197, 197], q_heads=3, kv_heads=3, dim=64),
    _case("segments", [1100, 513], q_heads=2, kv_heads=1),
]

declare(
    schema="attention(Tensor q, Tensor k, Tensor v, Tensor query_start, float scale) -> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference,
    cases=CASES,
    cost=cost,
)

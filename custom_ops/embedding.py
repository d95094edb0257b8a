"""embedding: rows of a packed matrix, so that a tied input and output embedding exists once.

    tokens [T] int64; weight: [vocab, embedding_dim] packed by `pack_linear` -> [T, embedding_dim]
    float32, exactly the stored values.

Raises RuntimeError if a token lies outside the packed rows (vocab rounded up to 64; the rows that
were padded are zero) or a shape or dtype is not as above.
"""

from __future__ import annotations

from typing import Any

import torch

from .cost import Cost, Load, nbytes
from .declare import Case, declare
from .linear import PANEL, pack_linear, unpack_linear


def reference(tokens: torch.Tensor, weight: torch.Tensor, embedding_dim: int) -> torch.Tensor:
    rows = unpack_linear(weight, weight.shape[0] * PANEL, embedding_dim)
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    return rows.to(dtype)[tokens]


def fake(tokens: torch.Tensor, weight: torch.Tensor, embedding_dim: int) -> torch.Tensor:
    return weight.new_empty(tokens.shape[0], embedding_dim, dtype=torch.float32)


def cost(load: Load, tokens: Any, weight: Any, embedding_dim: Any) -> Cost:
    """The rows that are looked up, not the matrix."""
    row = nbytes(weight) // (weight.shape[0] * PANEL)
    out = tokens.shape[0] * embedding_dim * torch.float32.itemsize
    return Cost(0, nbytes(tokens) + tokens.shape[0] * row, out)


def _case(tokens: int, vocab: int, dim: int, dtype: torch.dtype) -> Case:
    def make(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, int]:
        weight = torch.randn(vocab, dim, generator=generator).to(dtype)
        return torch.randint(vocab, (tokens,), generator=generator), pack_linear(weight), dim

    return Case(f"{tokens}-of-{vocab}x{dim}-{str(dtype).removeprefix('torch.')}", make)


CASES = [
    _case(*sizes, dtype)
    for dtype in (torch.float32, torch.bfloat16)
    for sizes in [(1, 1, 1), (7, 100, 64), (300, 513, 129), (0, 64, 16)]
]

declare(
    schema="embedding(Tensor tokens, Tensor weight, int embedding_dim) -> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference,
    cases=CASES,
    cost=cost,
)

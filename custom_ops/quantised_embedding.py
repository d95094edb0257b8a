"""quantised_embedding: rows of a quantised matrix, so that a tied head and embedding exist once.

    tokens [T] int64; weight: [vocab, embedding_dim] of `bits` (4 or 8), packed as
    quantised_layout.py says -> [T, embedding_dim] float32, (code - zero) * scale exactly

Raises RuntimeError if a token lies outside the packed rows (vocab rounded up to 64; the rows that
were padded are zero) or a shape or dtype is not as above.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import embedding
from .cost import Cost, Load
from .declare import Case, declare
from .quantised_layout import PANEL, Layout, dequantise
from .quantised_linear import random_weight


def reference(tokens: Tensor, weight: Tensor, embedding_dim: int, bits: int) -> Tensor:
    return dequantise(weight, bits, weight.shape[0] * PANEL, embedding_dim)[tokens]


def fake(tokens: Tensor, weight: Tensor, embedding_dim: int, bits: int) -> Tensor:
    return weight.new_empty(tokens.shape[0], embedding_dim, dtype=torch.float32)


def cost(load: Load, tokens: Any, weight: Any, embedding_dim: Any, bits: Any) -> Cost:
    """As an embedding's; a zero is subtracted and a scale multiplied."""
    plain = embedding.cost(load, tokens, weight, embedding_dim)
    return plain._replace(flops=2 * tokens.shape[0] * embedding_dim)


def _case(tokens: int, vocab: int, dim: int, bits: int, group_size: int, kind: str) -> Case:
    dtype = torch.float32 if kind == "zp" else torch.float16
    layout = Layout(bits, group_size, dtype, zero_points=kind == "zp", multipliers=kind == "m32")

    def make(generator: torch.Generator) -> tuple[Tensor, Tensor, int, int]:
        weight = random_weight(vocab, dim, layout, generator)
        return torch.randint(vocab, (tokens,), generator=generator), weight, dim, bits

    name = f"{tokens}-of-{vocab}x{dim}-w{bits}-g{group_size}"
    return Case("-".join(filter(None, [name, kind])), make)


CASES = [
    _case(*sizes, bits, group_size, kind)
    for bits, group_size, kind in (
        (4, 32, ""),
        (4, 128, "zp"),
        (4, 128, "m32"),
        (8, 32, ""),
        (8, 128, "zp"),
    )
    for sizes in [(1, 1, 1), (7, 100, 64), (300, 513, 129), (0, 64, 16)]
]

declare(
    schema="quantised_embedding(Tensor tokens, Tensor weight, int embedding_dim, int bits) "
    "-> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference,
    cases=CASES,
    cost=cost,
)

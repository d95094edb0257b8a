"""Rotary position embedding: the angles of each family's scaling. paged_attention rotates by them.

Shape letters: T tokens of all sequences, B sequences, F half of the dimensions that rotate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import Rope


class Angles(NamedTuple):
    """Cosines and sines of each token's position, float32 [T, F]."""

    cos: Tensor
    sin: Tensor


class RotaryEmbedding(nn.Module):
    """Positions [T] to angles. Its frequencies are computed, not loaded: never on meta."""

    frequencies: Tensor  # float32 [F]; longrope: [2, F], short and long

    def __init__(self, rope: Rope, head_dim: int) -> None:
        super().__init__()
        self.rope = rope
        with torch.device("cpu"):
            frequencies = inverse_frequencies(rope, rope.rotary_dim(head_dim))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, positions_T: Tensor, query_start: Tensor, context_lens_B: Tensor) -> Angles:
        frequencies = self.frequencies
        if self.rope.kind == "longrope":
            lengths_T = of_tokens(context_lens_B, query_start, positions_T.shape[0])
            is_long = lengths_T > self.rope.original_max_position_embeddings
            frequencies = torch.where(is_long[:, None], frequencies[1], frequencies[0])
        angles = positions_T.float()[:, None] * frequencies
        factor = self.rope.attention_factor
        return Angles(angles.cos() * factor, angles.sin() * factor)

    def extra_repr(self) -> str:
        return str(self.rope)


def of_tokens(values_B: Tensor, query_start: Tensor, tokens: int) -> Tensor:
    """Each sequence's value for each of its tokens; the last one's for padding behind them."""
    token = torch.arange(tokens, device=values_B.device)
    sequence = (token[:, None] >= query_start[1:]).sum(1)
    return values_B[sequence.clamp(max=values_B.shape[0] - 1)]


def inverse_frequencies(rope: Rope, size: int) -> Tensor:
    """Angle of each rotated pair per position, float32 [size / 2]; longrope: [2, size / 2]."""
    waves = rope.theta ** (torch.arange(0, size, 2, dtype=torch.int64).float() / size)
    if rope.kind == "linear":
        return 1.0 / waves / rope.factor
    if rope.kind == "llama3":
        return _llama3(rope, 1.0 / waves)
    if rope.kind == "yarn":
        return _yarn(rope, waves, size)
    if rope.kind == "longrope":
        return 1.0 / (torch.tensor([rope.short_factor, rope.long_factor]) * waves)
    return 1.0 / waves


def _llama3(rope: Rope, plain: Tensor) -> Tensor:
    low, high = rope.low_freq_factor, rope.high_freq_factor
    wavelength = 2 * math.pi / plain
    context = rope.original_max_position_embeddings
    smooth = ((context / wavelength - low) / (high - low)).clamp(0, 1)
    return plain * smooth + plain / rope.factor * (1 - smooth)


def _yarn(rope: Rope, waves: Tensor, size: int) -> Tensor:
    """Section 3.2 of arXiv:2309.00071: waves that turn often in the original context stay."""

    def dimension(rotations: float) -> float:
        turns = rope.original_max_position_embeddings / (rotations * 2 * math.pi)
        return size * math.log(turns) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    if low == high:
        high += 0.001
    slowed = ((torch.arange(size // 2).float() - low) / (high - low)).clamp(0, 1)
    return 1.0 / (rope.factor * waves) * slowed + 1.0 / waves * (1 - slowed)

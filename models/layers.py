"""The parts of a decoder, on our ops. Activations are float32; weights are stored as `dtype`.

Shape suffixes: T tokens of all sequences, H hidden, N heads, K key-value heads, D head_dim, F half
of D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..custom_ops.linear import pack_linear
from .config import Config, Rope


def _parameter(shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)


def packed_shape(rows: int, columns: int, dtype: torch.dtype) -> torch.Size:
    """Shape that `pack_linear` gives a weight [rows, columns]."""
    return pack_linear(torch.empty(rows, columns, dtype=dtype, device="meta")).shape


class Stored(nn.Module):
    """A module with tensors of its own, which may lie in memory other than on disk."""

    def disk_shape(self, name: str) -> tuple[int, ...]:
        """Shape of its tensor `name` in a checkpoint."""
        return tuple(getattr(self, name).shape)

    def fill(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor as the module holds it, from the one on disk."""
        return tensor


class Linear(Stored):
    """y = x W^T + b with W packed."""

    def __init__(self, inputs: int, outputs: int, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = _parameter(packed_shape(outputs, inputs, dtype), dtype)
        self.bias = _parameter((outputs,), torch.float32) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.ingot.linear(x, self.weight, self.bias, self.outputs)
        return out

    def disk_shape(self, name: str) -> tuple[int, ...]:
        return (self.outputs,) if name == "bias" else (self.outputs, self.inputs)

    def fill(self, name: str, tensor: Tensor) -> Tensor:
        return tensor if name == "bias" else pack_linear(tensor)


class Embedding(Stored):
    """Rows of a packed matrix [vocab, H]; a tied head holds the same parameter."""

    def __init__(self, vocab_size: int, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.weight = _parameter(packed_shape(vocab_size, hidden_size, dtype), dtype)

    def forward(self, tokens_T: Tensor) -> Tensor:
        out: Tensor = torch.ops.ingot.embedding(tokens_T, self.weight, self.hidden_size)
        return out

    def disk_shape(self, name: str) -> tuple[int, ...]:
        return (self.vocab_size, self.hidden_size)

    def fill(self, name: str, tensor: Tensor) -> Tensor:
        return pack_linear(tensor)


class RMSNorm(Stored):
    """x / rms(x) * weight (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = _parameter((size,), torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Angle of each rotated pair per position, float32 [F], scaling applied."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    plain = 1.0 / rope.theta**exponents
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        context = rope.original_max_position_embeddings
        wavelength = 2 * math.pi / plain
        low, high = rope.low_freq_factor, rope.high_freq_factor
        smooth = ((context / wavelength - low) / (high - low)).clamp(0, 1)
        return plain * smooth + plain / rope.factor * (1 - smooth)
    return plain


def rotate(x_TND: Tensor, cos_T1F: Tensor, sin_T1F: Tensor) -> Tensor:
    """Rotate the pairs (i, i + F) of each head by its position's angles."""
    a, b = x_TND.chunk(2, dim=-1)
    return torch.cat((a * cos_T1F - b * sin_T1F, b * cos_T1F + a * sin_T1F), dim=-1)


@dataclass
class Step:
    """What all layers of one forward share: rotary angles and where the tokens' cache lies."""

    cos_T1F: Tensor
    sin_T1F: Tensor
    slot_mapping: Tensor
    query_start: Tensor
    seq_lens: Tensor
    block_table: Tensor


class Attention(nn.Module):
    """Causal self-attention over the paged cache (Ainslie et al. 2023 for grouped heads)."""

    def __init__(self, config: Config, dtype: torch.dtype, kv_dtype: str) -> None:
        super().__init__()
        c = config
        self.head_dim, self.window, self.kv_dtype = c.head_dim, c.sliding_window, kv_dtype
        queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        self.q_proj = Linear(c.hidden_size, queries, c.attention_bias, dtype)
        self.k_proj = Linear(c.hidden_size, keys, c.attention_bias, dtype)
        self.v_proj = Linear(c.hidden_size, keys, c.attention_bias, dtype)
        self.o_proj = Linear(queries, c.hidden_size, c.attention_bias, dtype)

    def forward(self, x_TH: Tensor, step: Step, cache: Tensor) -> Tensor:
        q_TND = self.q_proj(x_TH).unflatten(-1, (-1, self.head_dim))
        k_TKD = self.k_proj(x_TH).unflatten(-1, (-1, self.head_dim))
        v_TKD = self.v_proj(x_TH).unflatten(-1, (-1, self.head_dim))
        out_TND = torch.ops.ingot.paged_attention(
            rotate(q_TND, step.cos_T1F, step.sin_T1F),
            rotate(k_TKD, step.cos_T1F, step.sin_T1F),
            v_TKD,
            cache,
            step.slot_mapping,
            step.query_start,
            step.seq_lens,
            step.block_table,
            self.head_dim**-0.5,
            self.window,
            self.kv_dtype,
        )
        out: Tensor = self.o_proj(out_TND.flatten(1))
        return out


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, SwiGLU)."""

    def __init__(self, config: Config, dtype: torch.dtype) -> None:
        super().__init__()
        inner, bias = config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(config.hidden_size, inner, bias, dtype)
        self.up_proj = Linear(config.hidden_size, inner, bias, dtype)
        self.down_proj = Linear(inner, config.hidden_size, bias, dtype)

    def forward(self, x_TH: Tensor) -> Tensor:
        gate = nn.functional.silu(self.gate_proj(x_TH))
        out: Tensor = self.down_proj(gate * self.up_proj(x_TH))
        return out

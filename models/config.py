"""A decoder's architecture as data. What differs between families is a value here, not a class."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021) in the half-split layout, and its scaling.

    kind "linear" divides positions by `factor` (Chen et al. 2023, arXiv 2306.15595); "llama3" slows
    only the long waves, and blends in between (Llama 3.1's `rope_type`).
    """

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclass(frozen=True)
class Config:
    """All that decides a decoder's graph, and nothing about its weights' values."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_seq_len: int
    norm_eps: float
    rope: Rope
    attention_bias: bool = False
    mlp_bias: bool = False
    tied_head: bool = False
    sliding_window: int | None = None

"""Architectures as data. What differs between families is a value here, not a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021) in the half-split layout, and its scaling.

    kind "linear" divides positions by `factor` (Chen et al. 2023, arXiv:2306.15595); "llama3" slows
    only the long waves and blends in between (Llama 3.1); "yarn" does so by rotations within the
    original context (Peng et al., arXiv:2309.00071); "longrope" divides each wave by its own
    number, from one of two lists by the sequence's length (Ding et al., arXiv:2402.13753).
    """

    theta: float = 10000.0
    kind: Literal["default", "linear", "llama3", "yarn", "longrope"] = "default"
    partial_rotary_factor: float = 1.0  # of head_dim, from its start; the rest is not rotated
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    attention_factor: float = 1.0  # on cosines and sines
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def rotary_dim(self, head_dim: int) -> int:
        return int(head_dim * self.partial_rotary_factor)


Activation = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True)
class EncoderConfig:
    """What encoders of text and of images share."""

    architecture: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    norm_eps: float
    norms: Literal["before", "after"]  # "before": and one more after the last block
    activation: Activation
    qkv_bias: bool

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


@dataclass(frozen=True)
class TextEncoderConfig(EncoderConfig):
    """BERT's embeddings: of words, positions and token types, summed and normalised."""

    vocab_size: int
    max_seq_len: int
    type_vocab_size: int


@dataclass(frozen=True)
class ImageConfig(EncoderConfig):
    """A vision transformer over square patches, with a classifier."""

    num_channels: int
    image_size: int
    patch_size: int
    trained_image_size: int  # its position embeddings are interpolated where image_size differs
    num_labels: int
    labels: tuple[str, ...]
    distilled: bool = False  # a second token, which the classifier reads only with two heads
    two_heads: bool = False

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2 + 1 + self.distilled


@dataclass(frozen=True)
class Config:
    """A decoder: all that decides its graph, and nothing about its weights' values."""

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
    rope: Rope | None
    local_rope: Rope | None = None  # of the layers with a window, where theirs differs
    learned_positions: int = 0  # rows of their table, where there is no rope
    windows: tuple[int | None, ...] = ()  # a layer each; a token sees this many; (): all see all

    norm: Literal["rms", "rms_plus_one", "layer"] = "rms"  # plus one: weights are stored less one
    norms: Literal["before", "after", "around"] = "before"  # of attention and MLP
    query_key_norm: Literal["none", "head", "full"] = "none"  # per head, or over all heads
    activation: Activation = "silu"
    gated_mlp: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tied_head: bool = False

    attention_scale: float | None = None  # None: head_dim ** -0.5
    attention_softcap: float | None = None  # cap * tanh(score / cap)
    logit_softcap: float | None = None
    embedding_scale: float = 1.0

    # How the checkpoint stores weights.
    fused_projections: bool = False  # q+k+v and gate+up as one tensor each
    transposed: bool = False  # [in, out]

    def window(self, layer: int) -> int | None:
        return self.windows[layer] if self.windows else None

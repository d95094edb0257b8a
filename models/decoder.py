"""The decoder: one ragged graph for prefill, decode and any mixture of both.

Modules carry the checkpoint's own tensor names: `model.layers.0.self_attn.q_proj.weight`. Shape
letters: T new tokens of all sequences, B sequences, P blocks in the longest block table, R rows of
logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..custom_ops.paged_attention import bytes_per_block
from .config import Config
from .layers import (
    Attention,
    Embedding,
    GatedMLP,
    Linear,
    RMSNorm,
    Step,
    Stored,
    inverse_frequencies,
)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: Config, dtype: torch.dtype, kv_dtype: str) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config, dtype, kv_dtype)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = GatedMLP(config, dtype)

    def forward(self, x_TH: Tensor, step: Step, cache: Tensor) -> Tensor:
        x_TH = x_TH + self.self_attn(self.input_layernorm(x_TH), step, cache)
        out: Tensor = x_TH + self.mlp(self.post_attention_layernorm(x_TH))
        return out


class Backbone(nn.Module):
    """What checkpoints call `model`: embedding, blocks, final norm."""

    def __init__(self, config: Config, dtype: torch.dtype, kv_dtype: str) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, dtype)
        blocks = (Block(config, dtype, kv_dtype) for _ in range(config.num_layers))
        self.layers = nn.ModuleList(blocks)
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)


class Decoder(nn.Module):
    """A causal language model over a paged cache; `forward` is the graph contract.

    tokens, positions, slot_mapping [T], query_start [B + 1], seq_lens [B], block_table [B, P],
    logit_rows [R]: int64. kv_cache: one uint8 [num_blocks, bytes_per_block] a layer, mutated.
    Returns float32 [R, vocab_size].
    """

    inverse_frequencies: Tensor  # float32 [head_dim / 2]

    def __init__(self, config: Config, dtype: torch.dtype, kv_dtype: str) -> None:
        super().__init__()
        self.config, self.kv_dtype = config, kv_dtype
        self.dtype = str(dtype).removeprefix("torch.")
        self.model = Backbone(config, dtype, kv_dtype)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, False, dtype)
        if config.tied_head:
            self.lm_head.weight = self.model.embed_tokens.weight
        with torch.device("cpu"):  # computed, not loaded: real even while the rest is on meta
            frequencies = inverse_frequencies(config.rope, config.head_dim)
        self.register_buffer("inverse_frequencies", frequencies, persistent=False)

    @property
    def bytes_per_block(self) -> int:
        return bytes_per_block(self.config.num_kv_heads, self.config.head_dim, self.kv_dtype)

    @property
    def parameter_count(self) -> int:
        """As the checkpoint counts: without padding, a tied head once."""
        count = 0
        for name, owner in named_owners(self):
            if not (self.config.tied_head and name.startswith("lm_head.")):
                shape = owner.disk_shape(name.rpartition(".")[2])
                count += torch.Size(shape).numel()
        return count

    def new_cache(self, num_blocks: int) -> list[Tensor]:
        shape = (num_blocks, self.bytes_per_block)
        return [torch.zeros(shape, dtype=torch.uint8) for _ in range(self.config.num_layers)]

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        slot_mapping: Tensor,
        query_start: Tensor,
        seq_lens: Tensor,
        block_table: Tensor,
        logit_rows: Tensor,
        kv_cache: list[Tensor],
    ) -> Tensor:
        angles = positions.float()[:, None, None] * self.inverse_frequencies
        step = Step(angles.cos(), angles.sin(), slot_mapping, query_start, seq_lens, block_table)
        x_TH = self.model.embed_tokens(tokens)
        for block, cache in zip(self.model.layers, kv_cache, strict=True):
            x_TH = block(x_TH, step, cache)
        logits: Tensor = self.lm_head(self.model.norm(x_TH[logit_rows]))
        return logits


def named_owners(module: nn.Module) -> list[tuple[str, Stored]]:
    """Each parameter's name and the module that holds it, under every name it has."""
    return [
        (f"{path}.{name}" if path else name, owner)
        for path, owner in module.named_modules(remove_duplicate=False)
        if isinstance(owner, Stored)
        for name, _ in owner.named_parameters(recurse=False, remove_duplicate=False)
    ]

"""The decoder: one ragged graph for prefill, decode and any mixture of both.

Modules carry the names that most checkpoints give their tensors: `model.layers.0.self_attn.o_proj`.
Shape letters: T new tokens of all sequences, B sequences, P blocks in the longest block table, R
rows of logits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..custom_ops.paged_attention import bytes_per_block
from .config import Config
from .layers import MLP, Attention, Embedding, Linear, Step, Table, UntiedEmbedding, make_norm
from .model import Model
from .rope import Angles, RotaryEmbedding

# A block's norms: before attention, after it, before the MLP, after it. The second name means
# another place where norms stand on both sides: so the checkpoints have it.
_NORMS = {
    "before": ("input_layernorm", None, "post_attention_layernorm", None),
    "after": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    "around": (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
}


class Stream(NamedTuple):
    """What goes from block to block: x + added, None for zero. Whoever reads it takes the sum, in
    one kernel with what it does first, so that the code of a block begins and ends at a linear."""

    x_TH: Tensor
    added_TH: Tensor | None = None

    def sum(self) -> Tensor:
        return self.x_TH if self.added_TH is None else self.x_TH + self.added_TH


class Block(nn.Module):
    """x + attention(x), then x + mlp(x), with norms where the family has them."""

    writes = ("cache",)

    def __init__(self, config: Config, layer: int, dtype: torch.dtype, kv_dtype: str) -> None:
        super().__init__()
        window = config.window(layer)
        self.local = window is not None and config.local_rope is not None
        self.norms = _NORMS[config.norms]
        for name in filter(None, self.norms):
            self.add_module(name, make_norm(config, config.hidden_size))
        self.self_attn = Attention(config, window, dtype, kv_dtype)
        self.mlp = MLP(
            config.hidden_size,
            config.intermediate_size,
            config.activation,
            dtype,
            bias=config.mlp_bias,
            gated=config.gated_mlp,
            fused=config.fused_projections,
            transposed=config.transposed,
        )

    def norm(self, place: int, x_TH: Tensor) -> Tensor:
        name = self.norms[place]
        return x_TH if name is None else getattr(self, name)(x_TH)

    def forward(self, x: Stream, angles: Angles | None, step: Step, cache: Tensor) -> Stream:
        x_TH = x.sum()
        attended = self.self_attn(self.norm(0, x_TH), angles, step, cache)
        x_TH = x_TH + self.norm(1, attended)
        return Stream(x_TH, self.norm(3, self.mlp(self.norm(2, x_TH))))


class Backbone(nn.Module):
    """What checkpoints call `model`: embedding, blocks, final norm."""

    def __init__(self, config: Config, dtype: torch.dtype, kv_dtype: str) -> None:
        super().__init__()
        c = config
        embedding = Embedding if c.tied_head else UntiedEmbedding
        self.embed_tokens = embedding(c.vocab_size, c.hidden_size, dtype)
        if c.rope is None:
            self.embed_positions = Table(c.learned_positions, c.hidden_size)
        else:
            self.rotary_emb = RotaryEmbedding(c.rope, c.head_dim)
        if c.local_rope is not None:
            self.rotary_emb_local = RotaryEmbedding(c.local_rope, c.head_dim)
        blocks = (Block(c, layer, dtype, kv_dtype) for layer in range(c.num_layers))
        self.layers = nn.ModuleList(blocks)
        self.norm = make_norm(c, c.hidden_size)


class Decoder(Model):
    """A causal language model over a paged cache; `forward` is the graph contract.

    tokens, positions, slot_mapping [T], query_start [B + 1], seq_lens, context_lens [B],
    block_table [B, P], logit_rows [R]: int64. seq_lens counts the tokens of a sequence with this
    step's, context_lens those with its whole prompt, which may come in several steps. kv_cache: one
    uint8 [num_blocks, bytes_per_block] a layer, mutated. Returns float32 [R, vocab_size].
    """

    kind = "decoder"
    config: Config

    def __init__(self, config: Config, dtype: torch.dtype, kv_dtype: str) -> None:
        super().__init__(config, dtype)
        self.kv_dtype = kv_dtype
        self.model = Backbone(config, dtype, kv_dtype)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, False, dtype)
        self.tie()

    @property
    def bytes_per_block(self) -> int:
        return bytes_per_block(self.config.num_kv_heads, self.config.head_dim, self.kv_dtype)

    def tie(self) -> None:
        if self.config.tied_head:
            self.lm_head.weight = self.model.embed_tokens.weight

    def is_tied(self, owner: nn.Module) -> bool:
        return owner is self.lm_head and self.config.tied_head

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
        context_lens: Tensor,
        block_table: Tensor,
        logit_rows: Tensor,
        kv_cache: list[Tensor],
    ) -> Tensor:
        c, model = self.config, self.model
        x_TH = model.embed_tokens(tokens)
        if c.embedding_scale != 1:
            x_TH = x_TH * c.embedding_scale
        angles = local_angles = None
        if c.rope is None:
            x_TH = x_TH + model.embed_positions(positions)
        else:
            angles = model.rotary_emb(positions, query_start, context_lens)
        if c.local_rope is not None:
            local_angles = model.rotary_emb_local(positions, query_start, context_lens)
        step = Step(slot_mapping, query_start, seq_lens, block_table)
        x = Stream(x_TH)
        for block, cache in zip(model.layers, kv_cache, strict=True):
            x = block(x, local_angles if block.local else angles, step, cache)
        logits: Tensor = self.lm_head(model.norm(x.sum()[logit_rows]))
        if c.logit_softcap is not None:
            logits = c.logit_softcap * torch.tanh(logits / c.logit_softcap)
        return logits

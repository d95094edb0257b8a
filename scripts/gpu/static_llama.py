"""A Llama in plain PyTorch, of random weights, with a cache of fixed size, for torch.compile to be
compared by. One sequence, one token a step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """x [1, hidden], position [1], cos and sin [1, head_dim / 2] -> x."""

    def __init__(self, shape: dict[str, Any], context: int) -> None:
        super().__init__()
        hidden, inner = shape["hidden_size"], shape["intermediate_size"]
        self.heads, self.kv_heads = shape["num_attention_heads"], shape["num_key_value_heads"]
        self.dim = hidden // self.heads
        self.qkv = nn.Linear(hidden, (self.heads + 2 * self.kv_heads) * self.dim, bias=False)
        self.o = nn.Linear(hidden, hidden, bias=False)
        self.gate_up = nn.Linear(hidden, 2 * inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(hidden, eps=1e-5) for _ in range(2))
        for name in ("k", "v"):
            self.register_buffer(name, torch.zeros(1, self.kv_heads, context, self.dim))

    def forward(
        self, x: Tensor, position: Tensor, mask: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        heads = self.qkv(self.norms[0](x)).view(1, -1, 1, self.dim)
        q, k, v = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        self.k.index_copy_(2, position, rotate(k, cos, sin))
        self.v.index_copy_(2, position, v)
        out = F.scaled_dot_product_attention(
            rotate(q, cos, sin), self.k, self.v, attn_mask=mask, enable_gqa=True
        )
        x = x + self.o(out.reshape(1, -1))
        gate, up = self.gate_up(self.norms[1](x)).chunk(2, dim=-1)
        down: Tensor = self.down(F.silu(gate) * up)
        return x + down


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Llama(nn.Module):
    """token [1], position [1] int64 -> logits [1, vocab]."""

    def __init__(self, shape: dict[str, Any], context: int) -> None:
        super().__init__()
        hidden, vocab = shape["hidden_size"], shape["vocab_size"]
        self.embed = nn.Embedding(vocab, hidden)
        self.blocks = nn.ModuleList(
            Block(shape, context) for _ in range(shape["num_hidden_layers"])
        )
        self.norm, self.head = nn.RMSNorm(hidden, eps=1e-5), nn.Linear(hidden, vocab, bias=False)
        self.register_buffer("frequencies", _frequencies(shape))
        self.register_buffer("places", torch.arange(context))

    def forward(self, token: Tensor, position: Tensor) -> Tensor:
        x = self.embed(token)
        angles = position * self.frequencies
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        mask = (self.places <= position)[None, None, None]
        for block in self.blocks:
            x = block(x, position, mask, cos, sin)
        logits: Tensor = self.head(self.norm(x))
        return logits


def build(shape: dict[str, Any], context: int, device: str = "cuda") -> Llama:
    """In bfloat16; integers stay so."""
    with torch.device("meta"):
        model = Llama(shape, context)
    model = model.to_empty(device=device).bfloat16()
    for name, tensor in model.state_dict().items():
        if "norm" in name:
            tensor.fill_(1.0)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.02)
    model.places = torch.arange(context, device=device)
    model.frequencies = _frequencies(shape).to(device)
    return model.eval()


def _frequencies(shape: dict[str, Any]) -> Tensor:
    pairs = shape["hidden_size"] // shape["num_attention_heads"] // 2
    frequencies: Tensor = 1e4 ** (-torch.arange(pairs) / pairs)
    return frequencies

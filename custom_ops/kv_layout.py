"""The inside of a block of paged_attention's cache, which csrc/support/kv_block.h lays out alike.

A block holds 16 tokens: for each KV head K as [D][16], then V as [16][D], in `kv_dtype`.
"""

from __future__ import annotations

import torch

BLOCK = 16
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def bytes_per_block(num_kv_heads: int, head_dim: int, kv_dtype: str) -> int:
    """Bytes of one block of 16 tokens, K and V of every KV head."""
    return 2 * BLOCK * num_kv_heads * head_dim * ITEM_BYTES[kv_dtype]


def cache_views(
    kv_cache: torch.Tensor, num_kv_heads: int, head_dim: int, kv_dtype: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cache's K [num_blocks, Hkv, D, 16] and V [num_blocks, Hkv, 16, D], in place."""
    blocks = len(kv_cache)
    typed = kv_cache.view(getattr(torch, kv_dtype))
    k, v = typed.view(blocks, num_kv_heads, 2, head_dim * BLOCK).unbind(2)
    shape = blocks, num_kv_heads, head_dim, BLOCK
    return k.view(shape), v.view(*shape[:2], BLOCK, head_dim)

"""The inside of a block of paged_attention's cache, which csrc/support/kv_block.h lays out alike.

A block holds 16 tokens: for each KV head K as [D][16], then V as [16][D], in `kv_dtype`. Where that
is int8, K and V each begin with 16 float32 scales, one a token, and end at a multiple of 64 bytes.
"""

from __future__ import annotations

import torch

BLOCK = 16
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
_SCALE_BYTES = 4 * BLOCK


def bytes_per_block(num_kv_heads: int, head_dim: int, kv_dtype: str) -> int:
    """Bytes of one block of 16 tokens, K and V of every KV head."""
    size = BLOCK * head_dim * ITEM_BYTES[kv_dtype]
    if kv_dtype == "int8":
        size = _SCALE_BYTES + -(-size // 64) * 64
    return 2 * num_kv_heads * size


def cache_views(
    kv_cache: torch.Tensor, num_kv_heads: int, head_dim: int, kv_dtype: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cache's K [num_blocks, Hkv, D, 16] and V [num_blocks, Hkv, 16, D], in place."""
    begin = _SCALE_BYTES if kv_dtype == "int8" else 0
    end = begin + BLOCK * head_dim * ITEM_BYTES[kv_dtype]
    items = _parts(kv_cache, num_kv_heads)[..., begin:end].view(getattr(torch, kv_dtype))
    k, v = items.unbind(2)
    shape = len(kv_cache), num_kv_heads
    return k.view(*shape, head_dim, BLOCK), v.view(*shape, BLOCK, head_dim)


def scale_views(kv_cache: torch.Tensor, num_kv_heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An int8 cache's scales of K and of V, float32 [num_blocks, Hkv, 16], in place."""
    k, v = _parts(kv_cache, num_kv_heads)[..., :_SCALE_BYTES].view(torch.float32).unbind(2)
    return k, v


def _parts(kv_cache: torch.Tensor, num_kv_heads: int) -> torch.Tensor:
    """[num_blocks, Hkv, K or V, bytes]"""
    blocks, size = kv_cache.shape
    return kv_cache.view(blocks, num_kv_heads, 2, size // num_kv_heads // 2)


def quantise(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [..., D] as int8 codes [..., D] and float32 scales [...], x = code * scale.

    A scale is max |x| / 127, codes are rounded to nearest, ties to even. The scale of a vector that
    holds NaN or infinity is NaN.
    """
    x = x.float()
    largest = x.abs().amax(-1)
    scales = torch.where(largest.isfinite(), largest / 127, torch.nan)
    codes = (x / scales[..., None]).round().clamp(-127, 127)
    return torch.where(scales[..., None] > 0, codes, 0).to(torch.int8), scales


def write_tokens(
    kv_cache: torch.Tensor, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kv_dtype: str
) -> None:
    """Puts k, v [T, Hkv, D] at `slots` [T]."""
    num_kv_heads, head_dim = k.shape[1:]
    k_cache, v_cache = cache_views(kv_cache, num_kv_heads, head_dim, kv_dtype)
    block, index = slots // BLOCK, slots % BLOCK
    if kv_dtype == "int8":
        k_scales, v_scales = scale_views(kv_cache, num_kv_heads)
        k, k_scales[block, :, index] = quantise(k)
        v, v_scales[block, :, index] = quantise(v)
    k_cache[block, :, :, index] = k.to(k_cache.dtype)
    v_cache[block, :, index] = v.to(v_cache.dtype)


def read_tokens(
    kv_cache: torch.Tensor, slots: torch.Tensor, like: torch.Tensor, kv_dtype: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """K and V [T, Hkv, D] at `slots` [T], of the sizes and in the dtype of `like` [..., Hkv, D]."""
    num_kv_heads, head_dim = like.shape[-2:]
    k_cache, v_cache = cache_views(kv_cache, num_kv_heads, head_dim, kv_dtype)
    block, index = slots // BLOCK, slots % BLOCK
    k, v = k_cache[block, :, :, index].to(like.dtype), v_cache[block, :, index].to(like.dtype)
    if kv_dtype == "int8":
        k_scales, v_scales = scale_views(kv_cache, num_kv_heads)
        k, v = k * k_scales[block, :, index, None], v * v_scales[block, :, index, None]
    return k, v

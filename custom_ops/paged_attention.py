"""paged_attention: rotates queries and keys, writes keys and values to a paged cache, attends.

    q [T, Hq, D], k, v [T, Hkv, D] float32, D contiguous, Hq a multiple of Hkv, D <= 256
    kv_cache [num_blocks, bytes_per_block] uint8, mutated
    slot_mapping [T], query_start [B + 1], seq_lens [B], block_table [B, P] int64
    rotary_cos, rotary_sin [T, F] float32 or None, 2 F <= D: of each token's position
    -> [T, Hq, D] float32

The batch is ragged (T tokens of B sequences, one after the other). Token t's K and V go to slot
`slot_mapping[t]`, token `slot % 16` of block `slot // 16`; -1 writes nothing. Sequence b owns the
tokens `query_start[b] .. query_start[b + 1]`, the last of its `seq_lens[b]`, and the blocks
`block_table[b]`. A token at position p sees the positions (p - window, p], and beside a window the
first n_sink of its sequence (Xiao et al., arXiv:2309.17453). The pairs (d, d + F) of q and k are
turned by the token's angles first (Su et al., arXiv:2104.09864), what lies from 2 F on is not:

    out = softmax(cap(scale * q K^T)) V   each query head with KV head  head // (Hq / Hkv)
    cap(s) = softcap * tanh(s / softcap)  or s without a softcap (Gemma 2)

Tokens of a sequence with seq_lens 0, and those beyond query_start[B], give zeros. A block holds 16
tokens: for each KV head K as [D][16] then V as [16][D], in `kv_dtype`, which is float32, bfloat16,
float16 or int8. An int8 cache holds codes and for each token and KV head a float32 scale of K and
one of V, max |x| / 127: x is `code * scale`, code rounded to nearest, ties to even. NaN or infinity
in a vector makes its scale NaN. Where AMX multiplies with a cache that is not float32, queries and
softmax weights are rounded to 16 bits of significand; on GPUs' tensor cores to those of one factor.

Paging after vLLM (Kwon et al., arXiv:2309.06180), grouped queries after Ainslie et al.
(arXiv:2305.13245). Raises RuntimeError if a shape, dtype, stride, slot or block is out of range,
before anything is written; on a GPU, whose memory the checks do not read, only shapes, dtypes and
strides are checked.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .attention_cases import CASES
from .cost import Cost, Load, least, nbytes
from .declare import declare
from .kv_layout import BLOCK, bytes_per_block, read_tokens, write_tokens

__all__ = ["BLOCK", "bytes_per_block", "reference"]


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    kv_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    query_start: torch.Tensor,
    seq_lens: torch.Tensor,
    block_table: torch.Tensor,
    rotary_cos: torch.Tensor | None,
    rotary_sin: torch.Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
    n_sink: int,
    kv_dtype: str,
) -> torch.Tensor:
    if rotary_cos is not None and rotary_sin is not None:
        q, k = rotate(q, rotary_cos, rotary_sin), rotate(k, rotary_cos, rotary_sin)
    written = slot_mapping >= 0
    write_tokens(kv_cache, slot_mapping[written], k[written], v[written], kv_dtype)

    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    group = q.shape[1] // k.shape[1]
    for b, length in enumerate(seq_lens.tolist()):
        begin, end = query_start[b : b + 2].tolist() if length else (0, 0)
        for t in range(begin, end):
            last = length - end + t
            seen = torch.arange(last + 1)
            seen = seen[(seen > last - (window or last + 1)) | (seen < n_sink)]
            slots = block_table[b, seen // BLOCK] * BLOCK + seen % BLOCK
            keys, values = (
                x.repeat_interleave(group, 1) for x in read_tokens(kv_cache, slots, k, kv_dtype)
            )
            scores = torch.einsum("hd,shd->hs", q[t], keys) * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            out[t] = torch.einsum("hs,shd->hd", scores.softmax(-1), values)
    return out


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [T, heads, D] with the pairs (d, d + F) turned by cos, sin [T, F]."""
    size = cos.shape[1]
    cos, sin = cos[:, None], sin[:, None]
    a, b = x[..., :size], x[..., size : 2 * size]
    return torch.cat((a * cos - b * sin, b * cos + a * sin, x[..., 2 * size :]), dim=-1)


def rounded(level: str, *arguments: Any) -> tuple[Any, ...]:
    """On CUDA's tensor cores q is turned, multiplied by what its scores are, and then rounded."""
    dtype = _tensor_core_dtype(level, *arguments)
    if dtype is None:
        return arguments
    q, k, *others, cos, sin, scale, window, softcap, n_sink, kv_dtype = arguments
    if cos is not None:
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    factor = scale * math.log2(math.e) if softcap is None else scale / softcap
    q = (q * factor).to(dtype).to(q.dtype) / factor
    return q, k, *others, None, None, scale, window, softcap, n_sink, kv_dtype


def rounding(level: str, *arguments: Any) -> float:
    """What rounding to u adds to an output, the sum of w v over the sum of w: u times the largest v
    for the weights w. With AMX q is rounded, too, which moves a score by at most u times `_reach`,
    the quotient of two weights by the power of two such, and an output by no more than twice the
    largest v."""
    unit = _rounding_unit(level, *arguments)
    if unit == 0:
        return 0.0
    _, k, v, cache, *_, kv_dtype = arguments
    keys, values = read_tokens(cache, torch.arange(BLOCK * len(cache)), k, kv_dtype)
    moved = 0.0
    if level != "cuda":  # there q comes rounded
        moved = min(math.expm1(min(2 * unit * _reach(keys, *arguments), 2.0)), 2.0)
    return (unit + moved) * _largest(v, values)


def _rounding_unit(level: str, *arguments: Any) -> float:
    """By how much of itself a softmax weight is rounded: half an epsilon of what tensor cores
    multiply; half of 2^-15 of two bfloat16 parts, what AMX multiplies with a smaller cache."""
    dtype = _tensor_core_dtype(level, *arguments)
    if dtype is not None:
        return torch.finfo(dtype).eps / 2
    by_tiles = level == "x86-64-v4-amx" and arguments[-1] != "float32"
    return 2.0**-16 if by_tiles else 0.0


def _reach(keys: torch.Tensor, q: torch.Tensor, k: torch.Tensor, *others: Any) -> float:
    """The largest sum of |q k| of a score, of those too that no token sees."""
    *_, cos, sin, scale, _window, _softcap, _n_sink, _kv_dtype = others
    if cos is not None:
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    sizes = torch.cat((k, keys)).abs().nan_to_num(0, 0, 0)
    group = q.shape[1] // k.shape[1]
    queries = q.abs().nan_to_num(0, 0, 0).reshape(len(q), k.shape[1], group, q.shape[2])
    sums = torch.einsum("thgd,shd->htgs", queries, sizes)
    return float(scale) * sums.amax().item() if sums.numel() else 0.0


def _largest(*values: torch.Tensor) -> float:
    return max(x.abs().nan_to_num(0, 0, 0).max().item() for x in values if x.numel())


def _tensor_core_dtype(level: str, q: torch.Tensor, *others: Any) -> torch.dtype | None:
    """What tensor cores multiply, where they do: int8 codes are exact in bfloat16."""
    if level != "cuda" or q.shape[-1] not in (64, 80, 96, 128, 256):
        return None
    dtypes = {"bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.bfloat16}
    return dtypes.get(others[-1])


def cost(
    load: Load,
    q: Any,
    k: Any,
    v: Any,
    kv_cache: Any,
    slot_mapping: Any,
    query_start: Any,
    seq_lens: Any,
    block_table: Any,
    rotary_cos: Any,
    rotary_sin: Any,
    scale: Any,
    window: int | None,
    softcap: Any,
    n_sink: int,
    kv_dtype: str,
) -> Cost:
    """Q K^T and weights V over what each token sees; of the cache, the tokens that are seen or
    written, in the cache's dtype."""
    tokens, heads, dim = q.shape
    seen = _within(load, tokens, seq_lens.shape[0], window, n_sink)
    per_token = kv_cache.shape[1] // BLOCK
    read = nbytes(q, k, v, slot_mapping, query_start, seq_lens, block_table, rotary_cos, rotary_sin)
    return Cost(
        4 * seen.pairs * heads * dim,
        read + seen.context * per_token,
        nbytes(q) + tokens * per_token,
    )


def _within(load: Load, tokens: Any, sequences: Any, window: int | None, n_sink: int) -> Load:
    """What a sliding window leaves of a load: exact for sequences that are alike, and at decode an
    upper bound for others."""
    if load.context is None:
        load = Load(tokens, tokens * (tokens / sequences + 1) / 2)
    if window is None:
        return load
    new, length = tokens / sequences, load.context / sequences

    def pairs(tokens: Any) -> Any:
        """Of the first `tokens` of a sequence."""
        full = least(tokens, window + n_sink)
        return full * (full + 1) / 2 + (tokens - full) * (window + n_sink)

    context = sequences * least(length, window + n_sink + new - 1)
    return Load(context, sequences * (pairs(length) - pairs(length - new)))


def fake(q: torch.Tensor, *_: object) -> torch.Tensor:
    return q.new_empty(q.shape)


declare(
    schema="paged_attention(Tensor q, Tensor k, Tensor v, Tensor(a!) kv_cache, "
    "Tensor slot_mapping, Tensor query_start, Tensor seq_lens, Tensor block_table, "
    "Tensor? rotary_cos, Tensor? rotary_sin, "
    "float scale, int? window, float? softcap, int n_sink, str kv_dtype) -> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference,
    cases=CASES,
    cost=cost,
    rounded=rounded,
    rounding=rounding,
)

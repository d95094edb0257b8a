"""Our attention ops over dense batches, as ONNX's Attention and RotaryEmbedding (opset 23).

Shape letters as in `dense.py`; T is B * S, N query heads, F pairs that rotate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

OPSET = 23


@dataclass
class Cache:
    """One layer's keys and values [B, K, P, D]; [B, K, P + S, D] once attention has run."""

    key: Tensor
    value: Tensor


@dataclass(frozen=True)
class Heads:
    """Queries, keys or values as the operators take them: rows [B, S, count * size]."""

    rows: Tensor
    count: int
    size: int


@dataclass(frozen=True)
class Tokens:
    """The B sequences of S new tokens, behind P old ones, that our ops get as T rows.

    seen: bool [B, 1, S, S], which tokens each of an encoder's attends to; None: all. (The operator
    broadcasts; ONNX Runtime's does so over heads alone.)
    """

    batch: int
    length: int
    before: int
    seen: Tensor | None = None

    def rows(self, x: Tensor) -> Tensor:
        """[T, ...] -> [B, S, ...], flat behind."""
        return x.reshape(self.batch, self.length, -1)

    def heads(self, x: Tensor) -> Heads:
        """Of x [T, heads, D]."""
        return Heads(self.rows(x), x.shape[1], x.shape[2])

    def window(self, size: int) -> Tensor:
        """bool [S, P + S]: a token sees itself and those before it, `size` in all."""
        key = torch.arange(self.before + self.length)
        query = key[self.before :, None]
        return (key <= query) & (key > query - size)


class dense_attention(TorchFunctionMode):
    """While it is open, calls of our attention ops become ONNX operators over these tokens."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self.tokens = tokens

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        lowered = _OPS.get(func)
        return func(*args, **(kwargs or {})) if lowered is None else lowered(self.tokens, *args)


def _attend(
    tokens: Tokens,
    q: Heads,
    k: Heads,
    v: Heads,
    seen: Tensor | None,
    past: Cache | None,
    **how: Any,
) -> list[Tensor]:
    """The output [T, N, D]; with a past, the keys and values after it too."""
    inputs, shapes = [q.rows, k.rows, v.rows, seen], [q.rows.shape]
    if past is not None:
        inputs += [past.key, past.value]
        total = tokens.before + tokens.length
        shapes += [torch.Size((tokens.batch, x.count, total, x.size)) for x in (k, v)]
    out, *present = torch.onnx.ops.symbolic_multi_out(
        "Attention",
        inputs,
        {"q_num_heads": q.count, "kv_num_heads": k.count, **how},
        dtypes=[torch.float32] * len(shapes),
        shapes=shapes,
        version=OPSET,
    )
    return [out.view(-1, q.count, q.size), *present]


def _rotate(tokens: Tokens, x: Heads, cos: Tensor, sin: Tensor) -> Heads:
    """The heads turned by each token's angles, cos and sin [T, F]."""
    rotated = 2 * cos.shape[1]
    how = {"rotary_embedding_dim": rotated} if rotated < x.size else {}
    rows = torch.onnx.ops.symbolic(
        "RotaryEmbedding",
        [x.rows, tokens.rows(cos), tokens.rows(sin)],
        {"num_heads": x.count, **how},
        dtype=torch.float32,
        shape=x.rows.shape,
        version=OPSET,
    )
    return replace(x, rows=rows)


def _paged_attention(
    tokens: Tokens,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: Cache,
    _slot_mapping: Tensor,
    _query_start: Tensor,
    _seq_lens: Tensor,
    _block_table: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    scale: float,
    window: int | None,
    softcap: float | None,
    n_sink: int,
    _kv_dtype: str,
) -> Tensor:
    assert n_sink == 0  # no family has them
    queries, keys, values = (tokens.heads(x) for x in (q, k, v))
    if cos is not None and sin is not None:
        queries, keys = (_rotate(tokens, x, cos, sin) for x in (queries, keys))
    how: dict[str, Any] = {"scale": scale}
    if softcap is not None:
        how["softcap"] = softcap
    if window is None:
        how["is_causal"] = 1
    seen = None if window is None else tokens.window(window)
    out, cache.key, cache.value = _attend(tokens, queries, keys, values, seen, cache, **how)
    return out


def _attention(
    tokens: Tokens, q: Tensor, k: Tensor, v: Tensor, _query_start: Tensor, scale: float
) -> Tensor:
    queries, keys, values = (tokens.heads(x) for x in (q, k, v))
    (out,) = _attend(tokens, queries, keys, values, tokens.seen, None, scale=scale)
    return out


_OPS: dict[Any, Callable[..., Tensor]] = {
    torch.ops.ingot.paged_attention: _paged_attention,
    torch.ops.ingot.attention: _attention,
}

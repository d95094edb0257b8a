"""CUDA's paged_attention beyond its cases, emulated: what is not read, and sizes that it splits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ingot.custom_ops.attention_cases import Batch
from ingot.custom_ops.declare import OPS
from ingot.custom_ops.kv_layout import write_tokens

from ..custom_ops.conftest import copies
from . import emulated

DECODE = Batch("decode", [(290, 1), (16, 1)])
PROMPT = Batch("prompt", [(40, 30), (3, 1)])
BATCHES = [DECODE, replace(PROMPT, window=9, n_sink=2)]
CACHE, TABLE = 3, 7  # their places among the arguments


def attend(*arguments: Any) -> torch.Tensor:
    return emulated.call(OPS["paged_attention"].schema, *arguments)


def made(batch: Batch, kv_dtype: str) -> list[Any]:
    return list(replace(batch, kv_dtype=kv_dtype).make(torch.Generator().manual_seed(20)))


@pytest.mark.parametrize("kv_dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: batch.name)
def test_what_is_not_seen_is_not_read(batch: Batch, kv_dtype: str) -> None:
    """NaN in blocks of others, beyond a sequence's end and before its window changes nothing."""
    arguments = made(batch, kv_dtype)
    expected = attend(*copies(tuple(arguments)))
    k, cache, slots, query_start, seq_lens, table = arguments[1], *arguments[CACHE:8]
    seen = set(slots.tolist())
    for b, length in enumerate(seq_lens.tolist()):
        first = length - int(query_start[b + 1] - query_start[b]) - (batch.window or length) + 1
        positions = {*range(max(0, first), length), *range(min(batch.n_sink, length))}
        seen |= {int(table[b, p // 16]) * 16 + p % 16 for p in positions}
    unseen = torch.tensor(sorted(set(range(16 * len(cache))) - seen))
    nan = torch.full((len(unseen), *k.shape[1:]), torch.nan)
    write_tokens(cache, unseen, nan, nan, kv_dtype)
    assert torch.equal(attend(*arguments), expected)


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: batch.name)
def test_cache_may_be_a_view(batch: Batch, kv_dtype: str) -> None:
    """With room between blocks; and 4 bytes beside what tensor cores take, in float32."""
    arguments = made(batch, kv_dtype)
    cache = arguments[CACHE]
    expected_arguments = copies(tuple(arguments))
    expected = attend(*expected_arguments)
    blocks, size = cache.shape
    for offset in (32, 36):
        storage = torch.full((2 * blocks, size + 64), 7, dtype=torch.uint8)
        view = storage[1::2, offset : offset + size]
        view.copy_(cache)
        arguments[CACHE] = view
        out = attend(*arguments)
        assert torch.equal(view, expected_arguments[CACHE])
        if offset % 16 == 0:
            assert torch.equal(out, expected)
        torch.testing.assert_close(out, expected, rtol=0, atol=0.02)
        view.fill_(7)
        assert bool((storage == 7).all())


@pytest.mark.parametrize("kv_dtype", ["float32", "float16"])
def test_a_table_may_have_room_for_more(kv_dtype: str) -> None:
    """As a captured graph's: its width says how many blocks share keys, not how many there are."""
    arguments = made(DECODE, kv_dtype)
    expected = attend(*arguments)
    table = arguments[TABLE]
    for pages in (20, 200):
        unused = torch.full((len(table), pages - table.shape[1]), -1)
        arguments[TABLE] = torch.cat([table, unused], 1)
        tolerance = 1e-6 if kv_dtype == "float32" else 1e-3
        torch.testing.assert_close(attend(*arguments), expected, rtol=0, atol=tolerance)


def test_fewer_tokens_than_sequences_of_one_sequence_alone() -> None:
    """Tokens count as decode while they are no more than sequences, whoever has them."""
    together = made(Batch("one", [(70, 5), (0, 0), (0, 0), (0, 0), (0, 0)]), "bfloat16")
    prompt = copies(tuple(together))
    prompt[5], prompt[6], prompt[TABLE] = prompt[5][:2], prompt[6][:1], prompt[TABLE][:1]
    torch.testing.assert_close(attend(*together), attend(*prompt), rtol=0, atol=0.01)
    assert torch.equal(together[CACHE], prompt[CACHE])

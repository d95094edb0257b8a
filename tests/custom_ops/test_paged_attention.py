"""paged_attention beyond its cases: the cache as a view, what is written and what is never read."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from ingot.custom_ops.attention_cases import Batch
from ingot.custom_ops.declare import OPS
from ingot.custom_ops.kv_layout import (
    ITEM_BYTES,
    bytes_per_block,
    cache_views,
    scale_views,
    write_tokens,
)
from ingot.custom_ops.paged_attention import reference

from .conftest import copies

attend = torch.ops.ingot.paged_attention
KV_DTYPES = list(ITEM_BYTES)
BATCH = Batch("mixed", [(30, 3), (0, 20), (16, 1)], dim=24)
CACHE = 3  # its place among the arguments


def made(batch: Batch, generator: torch.Generator) -> list[Any]:
    return list(batch.make(generator))


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_cache_may_be_a_view(kv_dtype: str, level: str, generator: torch.Generator) -> None:
    arguments = made(replace(BATCH, kv_dtype=kv_dtype), generator)
    cache = arguments[CACHE]
    expected_arguments = copies(tuple(arguments))
    expected = attend(*expected_arguments)

    blocks, size = cache.shape
    storage = torch.full((3 * blocks, size + 64), 7, dtype=torch.uint8)
    view = storage[1::3, 32 : 32 + size]  # other rows and columns belong to others
    view.copy_(cache)
    arguments[CACHE] = view
    version = view._version
    assert torch.equal(attend(*arguments), expected)
    assert torch.equal(view, expected_arguments[CACHE])
    assert view._version > version
    view.fill_(7)
    assert bool((storage == 7).all())


def test_layers_of_one_cache_do_not_touch(level: str, generator: torch.Generator) -> None:
    arguments = made(BATCH, generator)
    layers = arguments[CACHE].repeat(3, 1, 1)
    expected = attend(*copies(tuple(arguments)))
    before = layers.clone()
    arguments[CACHE] = layers[1]
    assert torch.equal(attend(*arguments), expected)
    assert torch.equal(layers[::2], before[::2])
    assert not torch.equal(layers[1], before[1])


def test_q_k_v_may_share_one_tensor(level: str, generator: torch.Generator) -> None:
    arguments = made(replace(BATCH, q_heads=2, kv_heads=2), generator)
    arguments[1] = arguments[2] = arguments[0]
    clones = copies(tuple(arguments))
    assert torch.equal(attend(*arguments), attend(*clones))
    transposed = arguments[0].transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(attend(transposed, *arguments[1:]), attend(*clones))


def test_slot_minus_one_writes_nothing(level: str, generator: torch.Generator) -> None:
    arguments = made(BATCH, generator)
    arguments[4].fill_(-1)
    before = arguments[CACHE].clone()
    attend(*arguments)
    assert torch.equal(arguments[CACHE], before)


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_what_is_not_seen_is_not_read(
    kv_dtype: str, level: str, generator: torch.Generator
) -> None:
    """NaN in blocks of others, beyond a sequence's end and before its window changes nothing."""
    arguments = made(replace(BATCH, window=9, kv_dtype=kv_dtype), generator)
    expected = attend(*copies(tuple(arguments)))
    _, _, _, cache, slots, query_start, seq_lens, table = arguments[:8]
    seen = set(slots.tolist())
    for b, length in enumerate(seq_lens.tolist()):
        first = length - int(query_start[b + 1] - query_start[b]) - 8
        seen |= {int(table[b, p // 16]) * 16 + p % 16 for p in range(max(0, first), length)}
    unseen = torch.tensor(sorted(set(range(16 * len(cache))) - seen))
    keys = torch.full((len(unseen), 2, 24), torch.nan)
    write_tokens(cache, unseen, keys, torch.full_like(keys, torch.inf), kv_dtype)
    assert torch.equal(attend(*arguments), expected)


@pytest.mark.parametrize("n_sink", [0, 1])
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_a_page_that_is_not_seen_may_have_any_number(
    kv_dtype: str, n_sink: int, level: str, generator: torch.Generator
) -> None:
    """A runtime gives the blocks before a window back."""
    past, window = 700, 70
    batch = Batch("windowed", [(past, 1)], kv_dtype=kv_dtype, window=window, n_sink=n_sink)
    arguments = made(batch, generator)
    expected = attend(*copies(tuple(arguments)))
    table = arguments[7]
    table[:, n_sink : (past + 1 - window) // 16] = 1 << 40
    assert torch.equal(attend(*arguments), expected)


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("where", ["seen", "unseen", "twice"])
def test_the_only_sequences_tokens_may_go_anywhere(
    where: str, kv_dtype: str, level: str, generator: torch.Generator
) -> None:
    """All are written before one is read, as beside another sequence, though that takes longer."""
    arguments = made(Batch("alone", [(1030, 3)], kv_dtype=kv_dtype), generator)
    slots, table = arguments[4], arguments[7]
    if where == "seen":
        slots[1] = table[0, 0] * 16 + 5
    elif where == "unseen":
        slots[1] = int(next(b for b in range(len(arguments[CACHE])) if b not in table)) * 16
    else:
        table[0, 3] = table[0, -1]
    beside = copies(tuple(arguments))
    beside[5], beside[6] = torch.tensor([0, 3, 3]), torch.tensor([1033, 0])
    beside[7] = table.repeat(2, 1)
    exact = copies(tuple(arguments), torch.float64)
    out = attend(*arguments)
    assert torch.equal(out, attend(*beside))
    assert torch.equal(arguments[CACHE], beside[CACHE])
    torch.testing.assert_close(out.double(), reference(*exact), rtol=1e-4, atol=1e-4)
    assert torch.equal(arguments[CACHE], exact[CACHE])


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_token_by_token_equals_prefill(
    kv_dtype: str, level: str, generator: torch.Generator
) -> None:
    batch = Batch("prompt", [(0, 40)], q_heads=6, dim=40, kv_dtype=kv_dtype, window=21)
    arguments = made(batch, generator)
    q, k, v, cache, slots, _, _, table, *numbers = arguments
    stepped = torch.zeros_like(cache)
    rows = []
    for t in range(40):
        one = slice(t, t + 1)
        sizes = torch.tensor([0, 1]), torch.tensor([t + 1])
        rows.append(attend(q[one], k[one], v[one], stepped, slots[one], *sizes, table, *numbers))
    assert torch.equal(torch.cat(rows), attend(*arguments))


@pytest.mark.parametrize(
    ("value", "window", "n_sink", "softcap"),
    [(0.0, None, 0, None), (torch.nan, None, 0, 5.0), (torch.inf, 130, 3, None)],
)
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_a_prompt_may_be_cut_anywhere(
    kv_dtype: str,
    value: float,
    window: int | None,
    n_sink: int,
    softcap: float | None,
    level: str,
    generator: torch.Generator,
) -> None:
    """Hundreds of rows at once, and few; scores that rise on and on; what is not finite."""
    past, new = 40, 580
    batch = Batch("prompt", [(past, new)], q_heads=4, kv_heads=1, kv_dtype=kv_dtype)
    batch = replace(batch, window=window, n_sink=n_sink, softcap=softcap)
    q, k, v, cache, slots, _, _, table, *numbers = made(batch, generator)
    k *= torch.linspace(0.1, 30, new)[:, None, None]
    v[300, 0, 7] = value
    in_steps, rows = cache.clone(), []
    for begin, end in pairwise([0, 1, 30, 126, 483, 484, new]):
        cut, sizes = slice(begin, end), (torch.tensor([0, end - begin]), torch.tensor([past + end]))
        rows.append(attend(q[cut], k[cut], v[cut], in_steps, slots[cut], *sizes, table, *numbers))
    sizes = torch.tensor([0, new]), torch.tensor([past + new])
    together = attend(q, k, v, cache, slots, *sizes, table, *numbers)
    torch.testing.assert_close(torch.cat(rows), together, rtol=0, atol=0, equal_nan=True)
    assert bool(together[:300].isfinite().all())
    assert bool(together[300].isfinite().all()) == (value == 0)


@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_a_segments_end_and_the_threads_change_no_bit(
    kv_dtype: str, window: int | None, level: str, generator: torch.Generator
) -> None:
    """A long prompt's last tokens at once, in one tile or two, and alone, shared by threads."""
    batch = Batch("long", [(1018, 12)], q_heads=6, dim=32, kv_dtype=kv_dtype, window=window)
    q, k, v, cache, slots, starts, lens, table, *numbers = made(batch, generator)
    together = attend(q, k, v, cache, slots, starts, lens, table, *numbers)
    for t in range(12):
        one, sizes = slice(t, t + 1), (torch.tensor([0, 1]), torch.tensor([1019 + t]))
        alone = attend(q[one], k[one], v[one], cache, slots[one], *sizes, table, *numbers)
        assert torch.equal(alone, together[one])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(attend(q, k, v, cache, slots, starts, lens, table, *numbers), together)
    finally:
        torch.set_num_threads(threads)


def test_a_sequence_does_not_depend_on_the_others(level: str, generator: torch.Generator) -> None:
    q, k, v, cache, slots, starts, lens, table, *numbers = made(BATCH, generator)
    together = attend(q, k, v, cache.clone(), slots, starts, lens, table, *numbers)
    for b in range(len(lens)):
        own = slice(int(starts[b]), int(starts[b + 1]))
        start = torch.tensor([0, own.stop - own.start])
        ours = (q[own], k[own], v[own], cache.clone(), slots[own], start)
        alone = attend(*ours, lens[b : b + 1], table[b : b + 1], *numbers)
        assert torch.equal(alone, together[own])


@pytest.mark.parametrize("place", ["q", "k", "v"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_inf_and_nan_as_in_the_formula(
    place: str, value: float, kv_dtype: str, level: str, generator: torch.Generator
) -> None:
    arguments = made(replace(BATCH, kv_dtype=kv_dtype), generator)
    arguments["qkv".index(place)][5] = value
    clones = copies(tuple(arguments))
    expected = reference(*clones)
    rounding = OPS["paged_attention"].rounding(level, *clones)
    out = attend(*arguments)
    torch.testing.assert_close(out, expected, rtol=1.3e-6, atol=1e-5 + rounding, equal_nan=True)
    if kv_dtype != "bfloat16" or value == value:  # torch rounds NaN to one of other bits
        assert torch.equal(arguments[CACHE].view(torch.int32), clones[CACHE].view(torch.int32))


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "float16"])
def test_cache_rounds_as_torch_does(kv_dtype: str, level: str) -> None:
    """Every 16-bit value, its halfway neighbours, and the two float32 beside each of those."""
    dtype = getattr(torch, kv_dtype)
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype).float()
    values = values[values.isfinite()]
    halfway = (values.view(torch.int32) + (1 << (15 if kv_dtype == "bfloat16" else 12))).view(
        torch.float32
    )
    edges = torch.tensor([65519.0, 65520.0, 65536.0, 1e-8, 2.0**-25, 3.0e38, torch.inf, -torch.inf])
    around = [torch.nextafter(halfway, torch.tensor(sign * torch.inf)) for sign in (-1, 1)]
    values = torch.cat([values, halfway, *around, edges])
    values = values[~values.isnan()]
    tokens = -(-len(values) // 256)
    x = torch.nn.functional.pad(values, (0, tokens * 256 - len(values))).view(tokens, 1, 256)
    blocks = -(-tokens // 16)
    cache = torch.zeros(blocks, bytes_per_block(1, 256, kv_dtype), dtype=torch.uint8)
    sizes = torch.tensor([0, tokens]), torch.tensor([0]), torch.zeros(1, 1, dtype=torch.int64)
    attend(x, x, x, cache, torch.arange(tokens), *sizes, None, None, 1.0, None, None, 0, kv_dtype)
    keys, rows = cache_views(cache, 1, 256, kv_dtype)
    expected = x.to(dtype).view(torch.int16)
    assert torch.equal(rows.reshape(-1, 1, 256)[:tokens].view(torch.int16), expected)
    keys = keys.transpose(2, 3).reshape(-1, 1, 256)[:tokens]
    assert torch.equal(keys.contiguous().view(torch.int16), expected)


def test_an_int8_cache_holds_codes_and_scales(level: str) -> None:
    """Vectors that quantise in some special way, written by the kernel and read back."""
    x = torch.zeros(10, 1, 5)
    x[0] = torch.tensor([127.0, 0.5, 1.5, -2.5, -127.0])  # scale 1: ties go to even
    x[1] = torch.tensor([0.0, -0.0, 0.0, 0.0, 0.0])
    x[2, 0, 3] = torch.nan
    x[3, 0, 4] = -torch.inf
    x[4] = torch.tensor([3.0e38, -3.0e38, 1.0, 1e38, 0.0])
    x[5] = torch.tensor([177.0, -177.0, 1.0, 60.0, 0.0]) * 2.0**-149  # the scale is 2^-149
    x[6] = torch.tensor([60.0, -60.0, 1.0, 0.0, 0.0]) * 2.0**-149  # and here 0
    x[7:] = torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(0))
    cache = torch.zeros(1, bytes_per_block(1, 5, "int8"), dtype=torch.uint8)
    sizes = torch.tensor([0, 10]), torch.tensor([0]), torch.zeros(1, 1, dtype=torch.int64)
    slots = torch.arange(3, 13)
    attend(x, x, -x, cache, slots, *sizes, None, None, 1.0, None, None, 0, "int8")

    k, v = cache_views(cache, 1, 5, "int8")
    codes, scales = k[0, 0, :, 3:13].T, scale_views(cache, 1)[0][0, 0, 3:13]
    assert torch.equal(v[0, 0, 3:13], -codes)
    assert codes[0].tolist() == [127, 0, 2, -2, -127]
    assert scales[:2].tolist() == [1.0, 0.0]
    assert scales[2:4].isnan().all()
    assert not codes[1:4].any()
    assert codes[4].tolist() == [127, -127, 0, 42, 0]
    assert codes[5].tolist() == [127, -127, 1, 60, 0]
    assert scales[5:7].tolist() == [2.0**-149, 0.0]
    assert not codes[6].any()
    error = (codes[7:] * scales[7:, None] - x[7:, 0]).abs()
    assert bool((error <= scales[7:, None] * 0.50001).all())  # half a step, and float32's rounding

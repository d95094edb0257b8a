"""Cases of paged_attention: ragged batches over a shuffled paged cache that holds a past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .declare import Case
from .kv_layout import BLOCK, ITEM_BYTES, bytes_per_block, write_tokens


@dataclass(frozen=True)
class Batch:
    """Sequences as (past tokens, new tokens); those in `empty` get seq_lens 0 and slots -1.

    `padding` tokens follow the last sequence, with slot -1; `strided` leaves gaps in q, k and v;
    `in_order`: a sequence's blocks lie one behind the other, as in a cache without pages.
    """

    name: str
    sequences: Sequence[tuple[int, int]]
    q_heads: int = 4
    kv_heads: int = 2
    dim: int = 64
    kv_dtype: str = "float32"
    window: int | None = None
    softcap: float | None = None
    n_sink: int = 0
    rotary: int = 0  # pairs of dimensions that are rotated
    padding: int = 0
    empty: tuple[int, ...] = ()
    strided: bool = False
    in_order: bool = False

    def make(self, generator: torch.Generator) -> tuple[Any, ...]:
        """The op's arguments, the cache filled with a random past."""
        lengths = [0 if b in self.empty else sum(s) for b, s in enumerate(self.sequences)]
        pages = max(1, *(-(-n // BLOCK) for n in lengths))
        blocks = sum(-(-n // BLOCK) for n in lengths) + 2
        table = self._block_table(lengths, pages, blocks, generator)
        news = torch.tensor([new for _, new in self.sequences])
        tokens = int(news.sum()) + self.padding
        heads = self.q_heads + 2 * self.kv_heads
        gap = 3 if self.strided else 0
        qkv = torch.randn(tokens, heads, self.dim + gap, generator=generator)[..., : self.dim]
        q, k, v = torch.split(qkv, [self.q_heads, self.kv_heads, self.kv_heads], 1)
        if not self.strided:
            q, k, v = (x.clone(memory_format=torch.contiguous_format) for x in (q, k, v))
        query_start = torch.cat([torch.zeros(1, dtype=torch.int64), news.cumsum(0)])
        slots = self._slots(lengths, table, tokens)
        cache = self._cache(blocks, generator)
        seq_lens = torch.tensor(lengths)
        numbers = (self.dim**-0.5, self.window, self.softcap, self.n_sink, self.kv_dtype)
        angles = self._angles(tokens, generator)
        return q, k, v, cache, slots, query_start, seq_lens, table, *angles, *numbers

    def _angles(
        self, tokens: int, generator: torch.Generator
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Cosines and sines, as rows of wider tensors where `strided`."""
        if not self.rotary:
            return None, None
        angles = torch.randn(tokens, self.rotary + 5 * self.strided, generator=generator)
        return angles.cos()[:, : self.rotary], angles.sin()[:, : self.rotary]

    def _block_table(
        self, lengths: list[int], pages: int, blocks: int, generator: torch.Generator
    ) -> torch.Tensor:
        table = torch.full((len(lengths), pages), -1)  # unused entries must not be read
        free = torch.randperm(blocks, generator=generator).tolist()
        if self.in_order:
            free.sort(reverse=True)
        for b, length in enumerate(lengths):
            for page in range(-(-length // BLOCK)):
                table[b, page] = free.pop()
        return table

    def _slots(self, lengths: list[int], table: torch.Tensor, tokens: int) -> torch.Tensor:
        slots = []
        for b, (past, new) in enumerate(self.sequences):
            for position in range(past, past + new):
                used = position < lengths[b]
                block = int(table[b, position // BLOCK]) if used else -1
                slots.append(block * BLOCK + position % BLOCK if used else -1)
        return torch.tensor(slots + [-1] * (tokens - len(slots)), dtype=torch.int64)

    def _cache(self, blocks: int, generator: torch.Generator) -> torch.Tensor:
        size = bytes_per_block(self.kv_heads, self.dim, self.kv_dtype)
        cache = torch.zeros(blocks, size, dtype=torch.uint8)
        slots = torch.arange(blocks * BLOCK)
        k, v = torch.randn(2, len(slots), self.kv_heads, self.dim, generator=generator)
        write_tokens(cache, slots, k, v, self.kv_dtype)
        return cache


_RAGGED = Batch("ragged", [(0, 37), (20, 1), (15, 1), (16, 5), (0, 1), (100, 40)])
# Sequences of several segments (csrc/support/attention_tile.h), of few rows and of many.
_LONG = Batch("segments", [(1100, 1), (505, 20), (0, 3), (1023, 2)], q_heads=6, dim=32)
_SHARED = Batch("shared-window-dim96", [(480, 1), (333, 1)], dim=96, window=260, n_sink=20)
_BATCHES = [
    Batch("prefill", [(0, 33)]),
    Batch("decode", [(70, 1)] * 4),
    Batch("one", [(0, 1)], q_heads=1, kv_heads=1, dim=1),
    Batch("mha-dim40", [(3, 20), (31, 2)], q_heads=3, kv_heads=3, dim=40),
    Batch("mqa-dim80", [(0, 18), (64, 1)], q_heads=7, kv_heads=1, dim=80),
    Batch("gqa-dim128", [(17, 9), (5, 1)], q_heads=24, kv_heads=2, dim=128),
    Batch("dim256", [(0, 17), (40, 3)], q_heads=2, kv_heads=1, dim=256),
    Batch("dim7", [(0, 17), (40, 3)], q_heads=5, kv_heads=5, dim=7),
    _RAGGED,
    replace(_RAGGED, name="padded", padding=5, empty=(1, 4)),
    replace(_RAGGED, name="window1", window=1),
    replace(_RAGGED, name="window20", window=20),
    replace(_RAGGED, name="window-larger", window=1000),
    replace(_RAGGED, name="softcap", softcap=0.7),
    replace(_RAGGED, name="softcap-wide", softcap=50.0, window=20),
    replace(_RAGGED, name="sink1", window=20, n_sink=1),
    replace(_RAGGED, name="sink18", window=3, n_sink=18),
    replace(_RAGGED, name="sink-larger", window=20, n_sink=1000),
    replace(_RAGGED, name="rotary", rotary=32),
    replace(_RAGGED, name="rotary-partial-strided", rotary=9, strided=True, padding=2),
    Batch("rotary-dim7", [(0, 17), (40, 3)], q_heads=5, kv_heads=5, dim=7, rotary=3),
    replace(_RAGGED, name="strided", strided=True),
    _LONG,
    replace(_LONG, name="segments-window", window=600, n_sink=5),
    replace(_LONG, name="segments-softcap-dim20", softcap=5.0, dim=20),
    # Keys that several blocks of a GPU share, at decode and beside a prompt; and several tokens of
    # one sequence among others that have none.
    Batch("shared-dim128", [(650, 1), (20, 1), (300, 1)], q_heads=8, dim=128),
    _SHARED,
    replace(_SHARED, name="shared-softcap-dim256", softcap=5.0, dim=256, q_heads=2, kv_heads=1),
    Batch("shared-beside-prompt", [(400, 1), (0, 20)]),
    # One sequence, whose threads write what they read themselves: over a segment's end, and padded.
    Batch("alone", [(505, 12)], q_heads=8, padding=2),
    Batch("alone-window", [(1500, 1)], q_heads=16, window=700, n_sink=20, strided=True),
    Batch("alone-softcap-dim128", [(1090, 2)], q_heads=8, kv_heads=1, dim=128, softcap=20.0),
    Batch("one-of-many-dim80", [(290, 6), *[(0, 0)] * 5], q_heads=8, dim=80, rotary=40),
    Batch("nothing", [(4, 0)]),
    Batch("padding-only", [(0, 0)], padding=3),
]

CASES = [
    Case(f"{batch.name}-{kv_dtype}", replace(batch, kv_dtype=kv_dtype).make)
    for batch in _BATCHES
    for kv_dtype in ITEM_BYTES
]

"""paged_attention over any ragged schedule, any pages, and poison in all that nobody owns: each
token gets the bits that it gets when its sequence is alone, whole, in pages that are in order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.custom_ops.kv_layout import ITEM_BYTES, bytes_per_block, cache_views, scale_views
from tests.ragged import BLOCK, Inputs, Schedule, alone, schedules

attend = torch.ops.ingot.paged_attention


class Layout(NamedTuple):
    """What a cache's block depends on."""

    kv_heads: int
    dim: int
    kv_dtype: str

    def slots(self, cache: torch.Tensor) -> list[torch.Tensor]:
        """The cache in place, [blocks, 16, ...] each: K, V and their scales."""
        k, v = cache_views(cache, *self)
        views = [k.permute(0, 3, 1, 2), v.permute(0, 2, 1, 3)]
        if self.kv_dtype == "int8":
            views += [scales.transpose(1, 2) for scales in scale_views(cache, self.kv_heads)]
        return views

    def poisoned(self, num_blocks: int, infinite: bool) -> torch.Tensor:
        """A cache of 0xFF bytes, which are NaN in every dtype, or of infinities."""
        size = bytes_per_block(*self)
        cache = torch.full((num_blocks, size), 0xFF, dtype=torch.uint8)
        if infinite:
            for view in self.slots(cache):
                if view.is_floating_point():
                    view.fill_(torch.inf)
        return cache


def seen_later(schedule: Schedule, fed: list[int], window: int | None, sinks: int) -> torch.Tensor:
    """The slots that some sequence's next token sees, bool [blocks, 16]: a window forgets."""
    seen = torch.zeros(schedule.num_blocks * BLOCK, dtype=torch.bool)
    for b, count in enumerate(fed):
        for p in range(count):
            if window is None or p > count - window or p < sinks:
                seen[schedule.slot(b, p)] = True
    return seen.view(-1, BLOCK)


def bits(view: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return view[where].contiguous().view(torch.uint8)


@pytest.mark.parametrize("kv_dtype", ITEM_BYTES)
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # a level is for all examples
)
@given(
    schedule=schedules(),
    heads=st.sampled_from([(4, 2), (3, 3), (5, 1)]),
    dim=st.sampled_from([8, 24]),
    window=st.sampled_from([(None, 0), (1, 0), (9, 0), (9, 3), (40, 18), (1000, 0)]),
    softcap=st.sampled_from([None, 2.0]),
    rotary=st.sampled_from([0, 4]),
)
def test_any_schedule_gives_each_sequence_its_own_bits(
    kv_dtype: str,
    level: str,
    schedule: Schedule,
    heads: tuple[int, int],
    dim: int,
    window: tuple[int | None, int],
    softcap: float | None,
    rotary: int,
) -> None:
    layout = Layout(heads[1], dim, kv_dtype)
    generator = torch.Generator().manual_seed(7)

    def random(*sizes: int) -> list[torch.Tensor]:
        return [torch.randn(length, *sizes, generator=generator) for length in schedule.lengths]

    q, k, v = random(heads[0], dim), random(heads[1], dim), random(heads[1], dim)
    turns: list[Any] = [None, None]
    if rotary:
        theta = random(rotary)
        turns = [[x.cos() for x in theta], [x.sin() for x in theta]]

    def call(inputs: Inputs, cache: torch.Tensor) -> torch.Tensor:
        rows = [x and inputs.gather(x) for x in (q, k, v, *turns)]
        where = (inputs.slots, inputs.query_start, inputs.seq_lens, inputs.block_table)
        numbers = (dim**-0.5, window[0], softcap, window[1], kv_dtype)
        out: torch.Tensor = attend(*rows[:3], cache, *where, *rows[3:], *numbers)
        return out

    expected = [torch.empty_like(x) for x in q]
    for b, length in enumerate(schedule.lengths):
        inputs = alone(b, length)
        zeros = torch.zeros(len(inputs.block_table[0]), bytes_per_block(*layout), dtype=torch.uint8)
        inputs.scatter(call(inputs, zeros), expected)

    found = [torch.full_like(x, torch.nan) for x in q]
    fed = [0] * len(q)
    cache = layout.poisoned(schedule.num_blocks, schedule.infinite)
    for step in range(len(schedule.steps)):
        fresh = layout.poisoned(schedule.num_blocks, schedule.infinite)
        seen = seen_later(schedule, fed, *window)
        for new, old in zip(layout.slots(fresh), layout.slots(cache), strict=True):
            new[seen] = old[seen]
        cache, before = fresh, fresh.clone()

        inputs = schedule.inputs(step)
        others = inputs.scatter(call(inputs, cache), found)
        assert not others.any()  # ghosts' and padding's

        mine = torch.zeros(schedule.num_blocks * BLOCK, dtype=torch.bool)
        mine[inputs.slots[inputs.slots >= 0]] = True
        left = ~mine.view(-1, BLOCK)
        for now, then in zip(layout.slots(cache), layout.slots(before), strict=True):
            assert torch.equal(bits(now, left), bits(then, left))
        for part in schedule.steps[step]:
            fed[part.sequence] = part.end
    assert all(map(torch.equal, found, expected))

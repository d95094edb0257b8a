"""linear_w4, linear_w8 and quantised_embedding beyond their cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.custom_ops.quantised_layout import (
    LARGEST_MULTIPLIER,
    MULTIPLIERS,
    Layout,
    dequantise,
    layout_of,
    layouts,
    pack,
    unpack,
)
from ingot.custom_ops.quantised_linear import random_weight
from ingot.ops_library import library

LAYOUTS = [*layouts(4), *layouts(8)]
OPS = {4: torch.ops.ingot.linear_w4, 8: torch.ops.ingot.linear_w8}
ACTIVATED = {4: torch.ops.ingot.linear_w4_activated, 8: torch.ops.ingot.linear_w8_activated}


def weight(bits: int, n: int, k: int, group_size: int, zeros: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return random_weight(n, k, Layout(bits, group_size, torch.float16, zeros), generator)


@pytest.mark.parametrize("activation_bits", [8, 16, 32])
@pytest.mark.parametrize(
    "layout",
    [
        Layout(4, 64, torch.float16, zero_points=True),
        Layout(4, 128, torch.float16, zero_points=False, multipliers=True),
        Layout(8, 64, torch.float16, zero_points=True),
    ],
    ids=lambda layout: layout.name,
)
def test_a_row_does_not_depend_on_its_batch(
    layout: Layout, activation_bits: int, level: str
) -> None:
    bits = layout.bits
    packed = random_weight(130, 300, layout, torch.Generator().manual_seed(1))
    x = torch.randn(300, 300, generator=torch.Generator().manual_seed(2))

    def product(rows: torch.Tensor) -> torch.Tensor:
        return OPS[bits](rows, packed, None, None, None, 130, activation_bits)  # type: ignore[no-any-return]

    whole = product(x)
    for first, rows in ((0, 1), (3, 2), (10, 5), (40, 7), (93, 7), (5, 33), (251, 49)):
        assert torch.equal(product(x[first : first + rows]), whole[first : first + rows])


LEVELS_OF_THE_SAME_BITS = ("x86-64-v4", "x86-64-v4-bf16", "x86-64-v4-amx")


@pytest.mark.parametrize("activation_bits", [8, 16, 32])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_levels_with_avx512_agree_to_the_bit(layout: Layout, activation_bits: int) -> None:
    bits = layout.bits
    generator = torch.Generator().manual_seed(3)
    packed = random_weight(130, 700, layout, generator)
    bias = torch.randn(130, generator=generator)
    chosen = library().ingot_ops_level()
    results: list[list[torch.Tensor]] = []
    for level in LEVELS_OF_THE_SAME_BITS:
        if library().ingot_ops_set_level(level.encode()) != 0:
            continue
        draws = torch.Generator().manual_seed(4)
        calls = [torch.randn(rows, 700, generator=draws) for rows in (1, 6, 7, 33, 272)]
        results.append(
            [OPS[bits](x, packed, bias, None, None, 130, activation_bits) for x in calls]
        )
        rest = (packed, bias, None, None, 130, activation_bits)
        results[-1] += [ACTIVATED[bits](x, *rest, "silu", gated) for x in calls for gated in (0, 1)]
    library().ingot_ops_set_level(chosen)
    if len(results) < 2:
        pytest.skip("this CPU has one of these levels at most")
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_no_two_layouts_have_blocks_of_the_same_size() -> None:
    for bits in (4, 8):
        sizes = [layout.block_bytes for layout in layouts(bits)]
        assert len(set(sizes)) == len(sizes)


@given(
    layout=st.sampled_from(LAYOUTS),
    rows=st.integers(1, 130),
    columns=st.integers(1, 300),
)
@settings(max_examples=60, deadline=None)
def test_what_is_packed_is_unpacked(layout: Layout, rows: int, columns: int) -> None:
    groups = -(-columns // layout.group_size)
    generator = torch.Generator().manual_seed(rows * 1000 + columns)

    def integers(end: int, count: int) -> torch.Tensor:
        return torch.randint(end, (rows, count), generator=generator, dtype=torch.uint8)

    codes = integers(2**layout.bits, columns)
    scales = torch.rand(rows, groups, generator=generator).to(layout.scale_dtype)
    zeros = integers(2**layout.bits, groups) if layout.zero_points else None
    multipliers = None
    if layout.multipliers:
        multipliers = integers(LARGEST_MULTIPLIER + 1, groups * MULTIPLIERS)
    packed = pack(codes, scales, zeros, layout.bits, layout.group_size, multipliers)
    assert layout_of(packed, layout.bits) == layout
    again = unpack(packed, layout.bits, rows, columns)
    for value, expected in zip(again, (codes, scales, zeros, multipliers), strict=True):
        assert value is expected or torch.equal(value, expected)

    matrix = dequantise(packed, layout.bits, rows, columns)
    n, k = rows - 1, columns - 1
    zero = 2 ** (layout.bits - 1) if zeros is None else int(zeros[n, k // layout.group_size])
    multiplier = 1 if multipliers is None else int(multipliers[n, k // 32])
    code = (int(codes[n, k]) - zero) * multiplier
    expected = torch.tensor(code) * scales[n, k // layout.group_size].float()
    assert torch.isclose(matrix[n, k], expected, rtol=1e-6, atol=0)


def bad(**changes: Any) -> dict[str, Any]:
    good = {
        "x": torch.ones(2, 64),
        "weight": weight(4, 64, 64, 32),
        "bias": None,
        "input_scale": None,
        "input_perm": None,
        "out_features": 64,
        "activation_bits": 8,
    }
    return {**good, **changes}


REFUSED = {
    "blocks of 1151 bytes, which no layout": bad(
        weight=weight(4, 64, 64, 32)[:, :, 1:].contiguous()
    ),
    "must be contiguous": bad(weight=weight(4, 64, 64, 32)[:, :, ::2]),
    "has 2 groups of 32 columns; 65 columns do not fit": bad(x=torch.ones(2, 65)),
    "out_features is 65, but the quantised weight has 1 panels": bad(out_features=65),
    "activation_bits is 4; it is 8, 16 or 32": bad(activation_bits=4),
    r"input_perm\[1\] is 64, outside \[0, 64\)": bad(
        input_perm=torch.tensor([0, 64, *range(2, 64)])
    ),
    "input_scale must be float32": bad(input_scale=torch.ones(63)),
    "bias must be float32": bad(bias=torch.ones(64).double()),
    "weight must be uint8": bad(weight=torch.ones(1, 2, 1152)),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_fit_is_refused(sentence: str) -> None:
    with pytest.raises(RuntimeError, match=sentence):
        torch.ops.ingot.linear_w4(*REFUSED[sentence].values())


def test_a_token_outside_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"tokens\[0\] is 64, outside \[0, 64\)"):
        torch.ops.ingot.quantised_embedding(torch.tensor([64]), weight(8, 60, 32, 32), 32, 8)
    with pytest.raises(RuntimeError, match="4 or 8 bits, not 3"):
        torch.ops.ingot.quantised_embedding(torch.tensor([0]), weight(8, 60, 32, 32), 32, 3)

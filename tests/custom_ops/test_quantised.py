"""linear_w4, linear_w8 and quantised_embedding beyond their cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.custom_ops.quantised_layout import layout_of, pack, unpack
from ingot.custom_ops.quantised_linear import random_weight
from ingot.ops_library import library

OPS = {4: torch.ops.ingot.linear_w4, 8: torch.ops.ingot.linear_w8}


def weight(bits: int, n: int, k: int, group_size: int, zeros: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return random_weight(n, k, bits, group_size, zeros, torch.float16, generator)


@pytest.mark.parametrize("activation_bits", [8, 16, 32])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_does_not_depend_on_its_batch(bits: int, activation_bits: int, level: str) -> None:
    packed = weight(bits, 130, 300, 64, zeros=True)
    x = torch.randn(300, 300, generator=torch.Generator().manual_seed(2))

    def product(rows: torch.Tensor) -> torch.Tensor:
        return OPS[bits](rows, packed, None, None, None, 130, activation_bits)  # type: ignore[no-any-return]

    whole = product(x)
    for first, rows in ((0, 1), (3, 2), (10, 5), (40, 7), (93, 7), (5, 33), (251, 49)):
        assert torch.equal(product(x[first : first + rows]), whole[first : first + rows])


LEVELS_OF_THE_SAME_BITS = ("x86-64-v4", "x86-64-v4-bf16", "x86-64-v4-amx")


@pytest.mark.parametrize("scale_dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("activation_bits", [8, 16, 32])
@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_levels_with_avx512_agree_to_the_bit(
    bits: int, group_size: int, activation_bits: int, zeros: bool, scale_dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(3)
    packed = random_weight(130, 700, bits, group_size, zeros, scale_dtype, generator)
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
    library().ingot_ops_set_level(chosen)
    if len(results) < 2:
        pytest.skip("this CPU has one of these levels at most")
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@given(
    bits=st.sampled_from([4, 8]),
    rows=st.integers(1, 130),
    columns=st.integers(1, 200),
    group_size=st.sampled_from([32, 64, 128]),
    zero_points=st.booleans(),
    dtype=st.sampled_from([torch.float16, torch.float32]),
)
@settings(max_examples=40, deadline=None)
def test_what_is_packed_is_unpacked(
    bits: int, rows: int, columns: int, group_size: int, zero_points: bool, dtype: torch.dtype
) -> None:
    groups = -(-columns // group_size)
    generator = torch.Generator().manual_seed(rows * 1000 + columns)
    codes = torch.randint(2**bits, (rows, columns), generator=generator, dtype=torch.uint8)
    scales = torch.rand(rows, groups, generator=generator).to(dtype)
    zeros = torch.randint(2**bits, (rows, groups), generator=generator, dtype=torch.uint8)
    packed = pack(codes, scales, zeros if zero_points else None, bits, group_size)
    layout = layout_of(packed, bits)
    assert (layout.group_size, layout.zero_points) == (group_size, zero_points)
    again = unpack(packed, bits, rows, columns)
    assert torch.equal(again[0], codes)
    assert torch.equal(again[1], scales)
    assert (again[2] is None) == (not zero_points)
    assert again[2] is None or torch.equal(again[2], zeros)


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

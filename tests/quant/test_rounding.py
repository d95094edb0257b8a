"""Rounding to nearest, for any matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.quant import round_to_nearest
from ingot.quant.weight import concatenate, weight_error

SCHEMES = st.tuples(st.sampled_from((4, 8)), st.sampled_from((32, 64, 128)), st.booleans())


@st.composite
def matrices(draw: st.DrawFn) -> torch.Tensor:
    """Normal values whose rows are of very different sizes; some groups are zeros."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 200))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    matrix = torch.randn(rows, columns, generator=generator)
    matrix *= 10 ** (torch.rand(rows, 1, generator=generator) * 12 - 6)
    matrix[:, : draw(st.integers(0, columns))] *= draw(st.sampled_from((0.0, 1.0)))
    return matrix


@settings(max_examples=50, deadline=None)
@given(matrices(), SCHEMES)
def test_no_weight_moves_by_more_than_half_a_step(
    matrix: torch.Tensor, scheme: tuple[int, int, bool]
) -> None:
    bits, group_size, symmetric = scheme
    weight = round_to_nearest(matrix, bits, group_size, symmetric)
    assert weight.codes.shape == matrix.shape
    assert int(weight.codes.max()) < 2**bits
    step = weight.scales.float().repeat_interleave(group_size, 1)[:, : matrix.shape[1]]
    # Stored scales are rounded, by 2^-11 as float16, which the largest codes meet most; a zero
    # point is rounded too, and moves the ends by half a step.
    allowed = step * (0.5 + 2**-11 * 2**bits + (not symmetric) * 0.5)
    assert bool(((weight.matrix() - matrix).abs() <= allowed).all())
    assert bool((weight.matrix()[matrix == 0] == 0).all())


@settings(max_examples=30, deadline=None)
@given(matrices(), SCHEMES)
def test_what_is_rounded_stays(matrix: torch.Tensor, scheme: tuple[int, int, bool]) -> None:
    bits, group_size, _ = scheme
    once = round_to_nearest(matrix, bits, group_size)
    twice = round_to_nearest(once.matrix(), bits, group_size)
    torch.testing.assert_close(twice.matrix(), once.matrix(), rtol=2**-10, atol=0)


@settings(max_examples=30, deadline=None)
@given(matrices(), SCHEMES)
def test_rows_come_apart_and_together(matrix: torch.Tensor, scheme: tuple[int, int, bool]) -> None:
    whole = round_to_nearest(matrix, *scheme)
    parts = [whole.rows(slice(row, row + 1)) for row in range(len(matrix))]
    assert torch.equal(concatenate(parts).matrix(), whole.matrix())
    assert torch.equal(parts[0].dequantised(), whole.matrix()[:1])


def test_more_bits_and_smaller_groups_are_nearer() -> None:
    matrix = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    errors = [
        weight_error(round_to_nearest(matrix, bits, size), matrix)
        for bits, size in ((4, 128), (4, 64), (4, 32), (8, 128))
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        round_to_nearest(torch.tensor([[1.0, value]]), 4, 32)

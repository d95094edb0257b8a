"""Rounding to nearest, for any matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.custom_ops.quantised_layout import LARGEST_MULTIPLIER
from ingot.quant import QuantisedWeight, round_to_nearest
from ingot.quant.recipe import Rule
from ingot.quant.search import quantise
from ingot.quant.weight import concatenate, round_with_multipliers, weight_error

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


def steps(weight: QuantisedWeight, columns: int) -> torch.Tensor:
    """What a code counts, [N, columns], of a weight with multipliers."""
    assert weight.multipliers is not None
    shared = weight.scales.float().repeat_interleave(weight.group_size, 1)
    return (shared * weight.multipliers.repeat_interleave(32, 1))[:, :columns]


@settings(max_examples=50, deadline=None)
@given(matrices())
def test_multipliers_reach_over_every_range(matrix: torch.Tensor) -> None:
    columns = matrix.shape[1]
    weight = round_with_multipliers(matrix, 1.0)  # no range is narrowed further
    assert weight.multipliers is not None
    assert int(weight.multipliers.max()) <= LARGEST_MULTIPLIER
    step = steps(weight, columns)
    # A multiplier is off the range by half a shared scale, which the largest codes meet 7 times.
    shared = weight.scales.float().repeat_interleave(128, 1)[:, :columns]
    allowed = step * (0.5 + 2**-7) + shared * 3.5
    assert bool(((weight.matrix() - matrix).abs() <= allowed).all())
    assert bool((weight.matrix()[matrix == 0] == 0).all())


@settings(max_examples=30, deadline=None)
@given(matrices())
def test_a_searched_multiplier_is_no_worse_in_any_group(matrix: torch.Tensor) -> None:
    def errors(weight: QuantisedWeight) -> torch.Tensor:
        off = (weight.matrix() - matrix).double().square()
        return torch.stack([part.sum(1) for part in off.split(32, dim=1)])

    searched, plain = round_with_multipliers(matrix), round_with_multipliers(matrix, 1.0)
    assert bool((errors(searched) <= errors(plain) * (1 + 1e-5)).all())


def test_double_quantisation_loses_nothing() -> None:
    matrix = torch.randn(64, 1000, generator=torch.Generator().manual_seed(1))
    single = weight_error(quantise(matrix, Rule(".*", 4, 32, double_quant=False)), matrix)
    double = quantise(matrix, Rule(".*", 4, 32))
    assert double.multipliers is not None
    assert weight_error(double, matrix) < single
    for rule in (Rule(".*", 4, 32, symmetric=False), Rule(".*", 4, 64), Rule(".*", 8, 32)):
        assert quantise(matrix, rule).multipliers is None


def test_weights_near_the_largest_float_keep_their_codes() -> None:
    matrix = torch.tensor([[3.0e38, -3.0e38 * 3 / 7, *[0.0] * 30]])
    assert round_with_multipliers(matrix).codes[0, :3].tolist() == [15, 5, 8]


@settings(max_examples=30, deadline=None)
@given(matrices(), st.none() | SCHEMES)
def test_rows_come_apart_and_together(
    matrix: torch.Tensor, scheme: tuple[int, int, bool] | None
) -> None:
    whole = round_to_nearest(matrix, *scheme) if scheme else round_with_multipliers(matrix)
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
    with pytest.raises(ValueError, match="NaN or infinity"):
        round_with_multipliers(torch.tensor([[1.0, value]]))

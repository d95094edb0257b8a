"""linear, linear_many and embedding beyond their cases: packing, special values, the same sums in
any batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.custom_ops.declare import OPS
from ingot.custom_ops.eager import bind
from ingot.custom_ops.linear import pack_linear, unpack_linear

from .conftest import assert_as_exact_as_torch

linear, linear_many = torch.ops.ingot.linear, torch.ops.ingot.linear_many
embedding = torch.ops.ingot.embedding
DTYPES = [torch.float32, torch.bfloat16]
each_op = pytest.mark.parametrize("op", [linear, linear_many])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (64, 2), (65, 3), (300, 129), (5, 0)])
def test_packing_is_undone(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = torch.randn(shape).to(dtype)
    packed = pack_linear(weight)
    assert torch.equal(unpack_linear(packed, *shape), weight)
    assert unpack_linear(packed, packed.shape[0] * 64, shape[1])[shape[0] :].count_nonzero() == 0


def test_packing_refuses_other_dtypes() -> None:
    with pytest.raises(ValueError, match="float64"):
        pack_linear(torch.zeros(2, 2, dtype=torch.float64))


@each_op
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_the_others(
    op: Any, dtype: torch.dtype, level: str, generator: torch.Generator
) -> None:
    weight = pack_linear(torch.randn(130, 333, generator=generator).to(dtype))
    x = torch.randn(310, 333, generator=generator)
    together = op(x, weight, None, 130)
    for rows in (1, 2, 3, 5, 7, 17, 32, 33, 48, 49, 65, 257):
        assert torch.equal(op(x[:rows], weight, None, 130), together[:rows])


@each_op
@pytest.mark.parametrize("dtype", DTYPES)
def test_nor_where_many_rows_take_a_long_k_in_parts(
    op: Any, dtype: torch.dtype, level: str, generator: torch.Generator
) -> None:
    weight = pack_linear(torch.randn(66, 8250, generator=generator).to(dtype))
    x, bias = torch.randn(70, 8250, generator=generator), torch.randn(66, generator=generator)
    together = op(x, weight, bias, 66)
    for row in (0, 69):
        assert torch.equal(op(x[row : row + 1], weight, bias, 66)[0], together[row])


@each_op
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 7, 37, 69])
def test_inf_and_nan_reach_exactly_their_outputs(
    op: Any, rows: int, dtype: torch.dtype, level: str, generator: torch.Generator
) -> None:
    weight = torch.randn(70, 33, generator=generator)
    weight[3, 32], weight[69, 0] = torch.nan, torch.inf
    x = torch.randn(rows, 33, generator=generator)
    x[rows - 1, 5] = -torch.inf
    out = op(x, pack_linear(weight.to(dtype)), None, 70)
    x, _ = OPS["linear"].rounded(level, x, weight.to(dtype))
    expected = x @ weight.to(dtype).float().T
    torch.testing.assert_close(out, expected, equal_nan=True, rtol=1e-3, atol=1e-3)


@each_op
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 7, 37, 69])
def test_nan_of_an_earlier_call_is_gone(
    op: Any, rows: int, dtype: torch.dtype, level: str, generator: torch.Generator
) -> None:
    """Where x is packed, the space is kept: what a shorter row does not fill must not count."""
    op(torch.full((80, 96), torch.nan), pack_linear(torch.ones(70, 96).to(dtype)), None, 70)
    weight = pack_linear(torch.randn(70, 33, generator=generator).to(dtype))
    assert op(torch.randn(rows, 33, generator=generator), weight, None, 70).isfinite().all()


SIZES = [2.0**-149, 2.0**-126, 2.0**-70, 2.0**-63, 2.0**-40, 1.0, 2.0**60, 2.0**120]


@pytest.mark.parametrize("of_x", SIZES)
@pytest.mark.parametrize("of_weight", SIZES)
def test_linear_many_is_exact_for_any_size(
    of_x: float, of_weight: float, level: str, generator: torch.Generator
) -> None:
    """Tiles take subnormals as zero, and the parts of small floats are such."""
    x, w = (torch.randn(n, 50, generator=generator) for n in (40, 70))
    sized_x, sized = x.clone(), w.clone()
    sized_x[7:9], sized[3:5] = x[7:9] * of_x, w[3:5] * of_weight
    found = linear_many(sized_x, pack_linear(sized), None, 70)
    formula, exact = sized_x @ sized.T, sized_x.double() @ sized.double().T
    for rows in (slice(7, 9), slice(9, None)):
        for columns in (slice(3, 5), slice(5, None)):
            ours, theirs, right = (y[rows, columns] for y in (found, formula, exact))
            subnormal = 2.0**-126 * torch.finfo(torch.float32).eps
            if right.abs().max() < torch.finfo(torch.float32).max:
                assert_as_exact_as_torch(ours, theirs, right, rounding=50 * subnormal)
            else:
                assert torch.equal(ours.isfinite(), theirs.isfinite())


def test_linear_many_next_to_the_largest_float(level: str) -> None:
    """The largest float's first part would be rounded to infinity."""
    largest = torch.finfo(torch.float32).max
    x, weight = torch.ones(40, 33), torch.zeros(70, 33)
    weight[3, 5], weight[4, :2] = largest, largest
    out = linear_many(x, pack_linear(weight), None, 70)
    assert torch.equal(out, x @ weight.T)
    assert out[:, 3].eq(largest).all()
    assert out[:, 4].isinf().all()


def test_embedding_keeps_every_bit(level: str) -> None:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    weight = bits.view(torch.bfloat16).view(512, 128)
    rows = embedding(torch.arange(512), pack_linear(weight), 128)
    assert torch.equal(rows.view(torch.int32), weight.float().view(torch.int32))


def test_rows_of_a_wider_tensor(level: str, generator: torch.Generator) -> None:
    weight = pack_linear(torch.randn(64, 32, generator=generator))
    wide = torch.randn(9, 100, generator=generator)
    view = wide[::2, 10:42]
    assert torch.equal(linear(view, weight, None, 64), linear(view.clone(), weight, None, 64))


def test_bound_calls_may_share_their_results(generator: torch.Generator) -> None:
    weight = pack_linear(torch.eye(3))
    rows = [torch.randn(2, 3, generator=generator) for _ in range(2)]
    results: list[torch.Tensor] = []
    first, second = (bind(OPS["linear"].schema, (x, weight, None, 3), results) for x in rows)
    (result,) = results
    first()
    assert torch.equal(result, rows[0])
    second()
    assert torch.equal(result, rows[1])

"""linear and embedding beyond their cases: packing, special values, the same sums in any batch."""

from __future__ import annotations

import pytest
import torch

from ingot.custom_ops.declare import OPS
from ingot.custom_ops.linear import pack_linear, unpack_linear

linear = torch.ops.ingot.linear
embedding = torch.ops.ingot.embedding
DTYPES = [torch.float32, torch.bfloat16]


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


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_the_others(
    dtype: torch.dtype, level: str, generator: torch.Generator
) -> None:
    weight = pack_linear(torch.randn(130, 333, generator=generator).to(dtype))
    x = torch.randn(110, 333, generator=generator)
    together = linear(x, weight, None, 130)
    for rows in (1, 2, 3, 5, 7, 17, 48, 49, 65):
        assert torch.equal(linear(x[:rows], weight, None, 130), together[:rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nor_where_many_rows_take_a_long_k_in_parts(
    dtype: torch.dtype, level: str, generator: torch.Generator
) -> None:
    weight = pack_linear(torch.randn(66, 8250, generator=generator).to(dtype))
    x, bias = torch.randn(70, 8250, generator=generator), torch.randn(66, generator=generator)
    together = linear(x, weight, bias, 66)
    for row in (0, 69):
        assert torch.equal(linear(x[row : row + 1], weight, bias, 66)[0], together[row])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 7, 37, 69])
def test_inf_and_nan_reach_exactly_their_outputs(
    rows: int, dtype: torch.dtype, level: str, generator: torch.Generator
) -> None:
    weight = torch.randn(70, 33, generator=generator)
    weight[3, 32], weight[69, 0] = torch.nan, torch.inf
    x = torch.randn(rows, 33, generator=generator)
    x[rows - 1, 5] = -torch.inf
    out = linear(x, pack_linear(weight.to(dtype)), None, 70)
    x, _ = OPS["linear"].rounded(level, x, weight.to(dtype))
    expected = x @ weight.to(dtype).float().T
    torch.testing.assert_close(out, expected, equal_nan=True, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 7, 37, 69])
def test_nan_of_an_earlier_call_is_gone(rows: int, level: str, generator: torch.Generator) -> None:
    """Where x is packed, the space is kept: what a shorter row does not fill must not count."""
    linear(torch.full((80, 96), torch.nan), pack_linear(torch.ones(70, 96).bfloat16()), None, 70)
    weight = pack_linear(torch.randn(70, 33, generator=generator).bfloat16())
    assert linear(torch.randn(rows, 33, generator=generator), weight, None, 70).isfinite().all()


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

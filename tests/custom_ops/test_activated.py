"""The linears that end in an activation, beyond their cases."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ingot.custom_ops.activation import ACTIVATIONS, activated
from ingot.custom_ops.linear import pack_linear
from ingot.custom_ops.quantised_layout import Layout, pack
from ingot.custom_ops.quantised_linear import random_weight

EPS = torch.finfo(torch.float32).eps
Op = Callable[..., Tensor]


def make_op(name: str, outputs: int, depth: int) -> Op:
    """f(x), or of the activated op f(x, activation, gated), by a weight of its own."""
    generator = torch.Generator().manual_seed(1)
    bias = torch.randn(outputs, generator=generator)
    if name in ("linear_w4", "linear_w8"):
        layout = Layout(int(name[-1]), 32, torch.float16, False)
        packed = random_weight(outputs, depth, layout, generator)
        arguments = (packed, bias, None, None, outputs, 16)
    else:
        kind, _, dtype = name.partition(".")
        weight = torch.randn(outputs, depth, generator=generator) / depth**0.5
        arguments = (pack_linear(weight.to(getattr(torch, dtype))), bias, outputs)
        name = kind

    def call(x: Tensor, *activation: object) -> Tensor:
        op = getattr(torch.ops.ingot, f"{name}_activated" if activation else name)
        return op(x, *arguments, *activation)  # type: ignore[no-any-return]

    return call


each_op = pytest.mark.parametrize(
    "name",
    ["linear.float32", "linear.bfloat16", "linear_many.float32", "linear_w4", "linear_w8"],
)


@each_op
@pytest.mark.parametrize(("outputs", "gated"), [(130, False), (130, True), (256, True)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_row_does_not_depend_on_its_batch(
    name: str, activation: str, outputs: int, gated: bool, level: str
) -> None:
    op = make_op(name, outputs, 300)
    x = torch.randn(272, 300, generator=torch.Generator().manual_seed(2))
    whole = op(x, activation, gated)
    for first, rows in ((0, 1), (3, 2), (10, 6), (40, 7), (93, 7), (5, 33), (99, 70)):
        assert torch.equal(op(x[first : first + rows], activation, gated), whole[first:][:rows])


@each_op
@pytest.mark.parametrize("rows", [1, 7, 33, 100, 272])
@pytest.mark.parametrize(("outputs", "gated"), [(130, False), (130, True), (256, True)])
def test_what_is_activated_is_what_the_op_without_gives(
    name: str, rows: int, outputs: int, gated: bool, level: str
) -> None:
    op = make_op(name, outputs, 200)
    x = 3 * torch.randn(rows, 200, generator=torch.Generator().manual_seed(2))
    sums = op(x).double()
    exact = activated(sums, "silu", gated)
    gate, up = sums.chunk(2, dim=-1) if gated else (sums, 1.0)
    # Eight units in the last place, or where less than 2 % of x passes, so many of 2 %.
    allowed = 8 * EPS * (exact.abs() + (0.02 * gate * up).abs())
    assert ((op(x, "silu", gated) - exact).abs() <= allowed).all()


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_as_exact_as_float32(activation: str, gated: bool, level: str) -> None:
    """Each row is one value, in a group of its own, times 1: x in 32 bits is rounded to 2^-30."""
    codes = torch.full((128, 32), 8, dtype=torch.uint8)
    codes[0, 0] = codes[64, 1] = 9
    one = pack(codes, torch.ones(128, 1).half(), None, 4, 32)
    size = torch.cat([torch.logspace(-20, 1.9, 2001), torch.linspace(0, 12, 5000)])
    values = torch.cat([size, -size])
    x = torch.zeros(len(values), 32)
    x[:, 0] = values
    if gated:
        x[:, 1] = values
    op = torch.ops.ingot.linear_w4_activated
    out = op(x, one, None, None, None, 128, 32, activation, gated)[:, 0].double()
    exact = ACTIVATIONS[activation](values.double()) * (values if gated else 1)
    # Eight units in the last place, or where less than 2 % of x passes, so many of 2 %.
    scale = exact.abs() + 0.02 * values.abs().clamp(max=6) * (values.abs() if gated else 1)
    assert ((out - exact).abs() <= 8 * EPS * scale + 2.0**-100).all()


@pytest.mark.parametrize(
    ("sentence", "outputs", "activation"),
    [
        ('activation is "relu"; write silu, gelu or gelu_tanh', 64, ("relu", False)),
        ("out_features is 65; of a gate and what it gates", 65, ("silu", True)),
    ],
)
@each_op
def test_what_does_not_fit_is_refused(
    name: str, sentence: str, outputs: int, activation: tuple[str, bool]
) -> None:
    with pytest.raises(RuntimeError, match=sentence):
        make_op(name, outputs, 32)(torch.ones(2, 32), *activation)

"""attention and attention_bf16 beyond their cases: company, threads, infinity and NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.custom_ops.attention import reference

OPS = [torch.ops.ingot.attention, torch.ops.ingot.attention_bf16]
LENGTHS = [100, 1, 0, 37, 197]


def made(dim: int, generator: torch.Generator) -> tuple[Any, ...]:
    q, k, v = torch.randn(3, sum(LENGTHS), 2, dim, generator=generator)
    return q, k, v, torch.tensor([0, *LENGTHS]).cumsum(0), dim**-0.5


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dim", [32, 40])
def test_neither_company_nor_threads_change_a_bit(
    op: Any, dim: int, level: str, generator: torch.Generator
) -> None:
    q, k, v, starts, scale = made(dim, generator)
    together = op(q, k, v, starts, scale)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(op(q, k, v, starts, scale), together)
    finally:
        torch.set_num_threads(threads)
    for begin, end in zip(starts.tolist(), starts.tolist()[1:], strict=False):
        own = slice(begin, end)
        alone = op(q[own], k[own], v[own], torch.tensor([0, end - begin]), scale)
        assert torch.equal(alone, together[own])


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("place", ["q", "k", "v"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_inf_and_nan_as_in_the_formula(
    op: Any, place: str, value: float, level: str, generator: torch.Generator
) -> None:
    """In one element: a score of -inf leaves a finite result, one of inf does not."""
    arguments = made(32, generator)
    arguments["qkv".index(place)][50, 1, 3] = value
    out, expected = op(*arguments), reference(*arguments)
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.isinf(), expected.isinf())
    finite = expected.isfinite()
    assert not finite.all()
    torch.testing.assert_close(out[finite], expected[finite], rtol=0.05, atol=0.05)


def test_only_tiles_round(level: str, generator: torch.Generator) -> None:
    arguments = made(64, generator)
    exact, rounded = (op(*arguments) for op in OPS)
    assert torch.equal(exact, rounded) == (level != "x86-64-v4-amx")

"""Every op's every case on a real GPU, by the eager ops; the sample is for compute-sanitizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.custom_ops.declare import OPS

from ..custom_ops.conftest import assert_as_exact_as_torch
from ..custom_ops.test_cases import CALLS, expected, make, mutated_of

if not torch.cuda.is_available():
    pytest.skip("there is no GPU", allow_module_level=True)
# Of each op's cases so many, evenly spread: under compute-sanitizer each takes a second.
_SAMPLED = 4
SAMPLE = [
    (name, index)
    for name, op in OPS.items()
    for index in range(0, len(op.cases), max(1, len(op.cases) // _SAMPLED))
]


def run(name: str, index: int) -> tuple[torch.Tensor, list[Any]]:
    arguments = [x.cuda() if isinstance(x, torch.Tensor) else x for x in make(name, index)]
    out = OPS[name].overload(*arguments)
    return out.cpu(), [x.cpu() for x in mutated_of(name, arguments)]


@pytest.mark.parametrize(("name", "index"), CALLS)
def test_agrees_with_float64(name: str, index: int) -> None:
    out, left = run(name, index)
    exact, formula, mutated = expected(name, index, "cuda")
    rounding = OPS[name].rounding("cuda", *make(name, index))
    assert_as_exact_as_torch(out, formula, exact, rounding)
    assert all(map(torch.equal, left, mutated))


@pytest.mark.parametrize(("name", "index"), SAMPLE)
def test_sample(name: str, index: int) -> None:
    out, _ = run(name, index)
    assert out.shape == expected(name, index, "cuda").exact.shape


@pytest.mark.parametrize("name", OPS)
def test_opcheck(name: str) -> None:
    arguments = [x.cuda() if isinstance(x, torch.Tensor) else x for x in make(name, 0)]
    torch.library.opcheck(OPS[name].overload, tuple(arguments))

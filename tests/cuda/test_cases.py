"""Every op's every case by the CUDA kernels, emulated, in both orders of the threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.custom_ops.declare import OPS

from ..custom_ops.conftest import assert_as_exact_as_torch
from ..custom_ops.test_cases import CALLS, expected, make, mutated_of
from . import emulated


def run(name: str, index: int) -> tuple[torch.Tensor, list[Any]]:
    arguments = make(name, index)
    return emulated.call(OPS[name].schema, *arguments), mutated_of(name, arguments)


@pytest.mark.parametrize("order", emulated.ORDERS)
@pytest.mark.parametrize(("name", "index"), CALLS)
def test_agrees_with_float64(
    name: str, index: int, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGOT_EMULATION_ORDER", order)
    out, left = run(name, index)
    exact, formula, mutated = expected(name, index, "cuda")
    rounding = OPS[name].rounding("cuda", *make(name, index))
    assert_as_exact_as_torch(out, formula, exact, rounding)
    assert all(map(torch.equal, left, mutated))

"""Every op's every case: right at each ISA level, and a well-behaved torch operator."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch

from ingot.custom_ops.declare import OPS

from .conftest import assert_as_exact_as_torch, copies

CALLS = [
    pytest.param(name, index, id=f"{name}-{case.name}")
    for name, op in OPS.items()
    for index, case in enumerate(op.cases)
]


class Expected(NamedTuple):
    exact: torch.Tensor  # the reference in float64
    formula: torch.Tensor  # and in float32, of what the level computes with
    mutated: list[torch.Tensor]


def make(name: str, index: int) -> tuple[Any, ...]:
    return OPS[name].cases[index].make(torch.Generator().manual_seed(20))


def mutated_of(name: str, arguments: Sequence[Any]) -> list[torch.Tensor]:
    declared = OPS[name].schema.arguments
    return [x for x, argument in zip(arguments, declared, strict=True) if argument.mutated]


@functools.cache
def exact_result(name: str, index: int) -> Any:
    return OPS[name].reference(*copies(make(name, index), torch.float64))


def expected(name: str, index: int, level: str) -> Expected:
    reference, exact = OPS[name].reference, exact_result(name, index)
    arguments = OPS[name].rounded(level, *make(name, index))
    return Expected(exact, reference(*arguments), mutated_of(name, arguments))


@pytest.mark.parametrize(("name", "index"), CALLS)
def test_agrees_with_float64(name: str, index: int, level: str) -> None:
    arguments = make(name, index)
    out = OPS[name].overload(*arguments)
    exact, formula, mutated = expected(name, index, level)
    rounding = OPS[name].rounding(level, *make(name, index))
    assert_as_exact_as_torch(out, formula, exact, rounding)
    assert all(map(torch.equal, mutated_of(name, arguments), mutated))


@pytest.mark.parametrize(("name", "index"), CALLS)
def test_opcheck(name: str, index: int) -> None:
    checks = ["test_schema", "test_faketensor"]
    if index == 0:
        checks += ["test_autograd_registration", "test_aot_dispatch_dynamic"]
    torch.library.opcheck(OPS[name].overload, make(name, index), test_utils=checks)

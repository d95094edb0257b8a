"""Runs a test at every ISA level that this CPU has, in one process, and compares in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import ingot.custom_ops  # noqa: F401  (registers the ops)
from ingot.ops_library import last_error, library

LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4-bf16", "x86-64-v4-amx")


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Forces the kernels of one level; a level that the CPU lacks is refused, not run."""
    chosen = library().ingot_ops_level()
    if library().ingot_ops_set_level(request.param.encode()) != 0:
        assert "this CPU has" in last_error()
        pytest.skip(last_error())
    yield request.param
    library().ingot_ops_set_level(chosen)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20)


def copies(arguments: tuple[Any, ...], dtype: torch.dtype | None = None) -> list[Any]:
    """Clones of a call's arguments, its float32 tensors as `dtype` if given."""

    def copy(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(dtype) if dtype and value.dtype == torch.float32 else value.clone()

    return [copy(value) for value in arguments]


def assert_as_exact_as_torch(
    out: torch.Tensor, formula: torch.Tensor, exact: torch.Tensor, rounding: float = 0.0
) -> None:
    """`out`'s largest error against float64 is at most twice that of the float32 formula of what
    the level computes with, plus half a unit in the last place of the largest value: the rounding
    of the result itself. `rounding` is what later rounding may add (declare.py). Where the formula
    gives NaN, so does the op."""
    assert out.shape == exact.shape
    assert out.dtype == torch.float32
    if out.numel() == 0:
        return
    defined = ~formula.isnan()
    assert torch.equal(~out.isnan(), defined)
    if not defined.any():
        return
    out, formula, exact = out[defined], formula[defined], exact[defined]
    error = (out - exact).abs().max().item()
    allowed = 2 * (formula - exact).abs().max().item()
    ulp = torch.finfo(torch.float32).eps * exact.abs().max().item()
    assert error <= allowed + rounding + ulp / 2, (
        f"error {error:.3g}, the formula's {allowed / 2:.3g}"
    )

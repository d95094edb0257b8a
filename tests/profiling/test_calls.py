"""Formulas over a step's sizes."""

from __future__ import annotations

import pytest

from ingot.profiling.calls import Call, Cost, cost, evaluate, own_name
from ingot.profiling.errors import ProfileError

SIZES = {"T": 4, "context": 100}


def test_values() -> None:
    assert evaluate("2*T*2048 + Min(context, 10)", SIZES) == 16394
    assert evaluate("-(T // 3) + ceiling(T/3) + T**2 % 5", SIZES) == 2
    assert cost(Call("linear", "op", flops="T", read_bytes="8"), SIZES) == Cost(4, 8, 0)


@pytest.mark.parametrize(
    "formula",
    ["U", "T.real", "__import__('os')", "T if T else 1", "1 +", "1 / (T - 4)", "9**9**9**9", "'a'"],
)
def test_refusals(formula: str) -> None:
    with pytest.raises(ProfileError):
        evaluate(formula, SIZES)


def test_an_ops_own_name_on_each_device() -> None:
    assert own_name("aoti_torch_cpu_linear_w4") == own_name("aoti_torch_cuda_linear_w4")
    assert own_name("aoti_torch_cuda_linear_w4") == "linear_w4"
    assert own_name("triton_poi_fused_add_0") == "triton_poi_fused_add_0"

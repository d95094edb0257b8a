"""The roofline, and hardware as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingot.profiling.calls import Call, Cost
from ingot.profiling.errors import ProfileError
from ingot.profiling.roofline import (
    FACTORS,
    Hardware,
    Speed,
    from_dict,
    intensity,
    kernel_name,
    known_hardware,
    predict,
    read_hardware,
)

MACHINE = Hardware(
    "toy",
    memory_gb=8,
    read_gb_s=10,
    gflop_s={"float32": 100, "int8": 400},
    call_us=5,
    kernels={"linear_w4.g32.a8": Speed(4, 200)},
)


def call(name: str, *tensors: tuple[str, list[int]]) -> Call:
    inputs = tuple({"dtype": dtype, "shape": shape} for dtype, shape in tensors)
    return Call(name, "op", inputs=inputs)


X = ("float32", [1, 4096])
INT4 = call("aoti_torch_cpu_linear_w4", X, ("uint8", [64, 128, 1152]))


def test_predictions() -> None:
    assert predict(Cost(1e9, 1e9, 0), MACHINE).bound == "memory"
    assert predict(Cost(1e9, 1e9, 0), MACHINE).seconds == pytest.approx(0.1 + 5e-6)
    assert predict(Cost(1e9, 1e6, 1e6), MACHINE).bound == "compute"
    assert predict(Cost(1e9, 1e6, 1e6), MACHINE).seconds == pytest.approx(0.01 + 5e-6)
    assert intensity(Cost(100, 20, 5)) == 4
    assert intensity(Cost(0, 0, 0)) == 0


def test_a_measured_kernel_replaces_the_machine() -> None:
    name = kernel_name(INT4, activation_bits=8)
    assert name == "linear_w4.g32.a8"
    assert predict(Cost(1e6, 1e9, 0), MACHINE, name).seconds == pytest.approx(0.25 + 5e-6)
    other = kernel_name(INT4, activation_bits=16)
    assert MACHINE.speed(other) == Speed(10, 100)  # it has no rate for bfloat16
    assert MACHINE.speed("linear_w8.g128.a8") == Speed(10, 400)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (call("linear", X, ("bfloat16", [64, 2048, 64, 2])), "linear.bfloat16"),
        (call("linear_many", X, ("float32", [64, 2048, 64])), "linear_many.float32"),
        (call("linear_w8", ("float32", [7, 200]), ("uint8", [1, 2, 8320])), "linear_w8.g128.a16"),
        (call("paged_attention", X), "paged_attention.int8"),
        (call("attention", X), "attention.float32"),
        (call("attention_bf16", X), "attention.bfloat16"),
        (call("cpp_fused_add_0", X), "generated"),
    ],
)
def test_kernel_names(made: Call, name: str) -> None:
    assert kernel_name(made, kv_dtype="int8") == name


@pytest.mark.parametrize("name", known_hardware())
def test_known_hardware_states_its_sources(name: str) -> None:
    found = read_hardware(name)
    assert all("https://" in source for source in found.sources)
    assert found.sources
    assert found.gflop_s.keys() == set(FACTORS)


def test_a_users_file(tmp_path: Path) -> None:
    """What was measured can be written and read again."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(MACHINE.to_dict()))
    assert read_hardware(str(path)) == MACHINE


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"read_gb_s": -1}, "read_gb_s is -1; it must be a positive number"),
        ({"memory_gb": None}, "memory_gb is None"),
        ({"gflop_s": {"int8": 1}}, '"float32": ...} at least'),
        ({"gflop_s": {"float32": "fast"}}, "float32 is 'fast'"),
        ({"call_us": float("inf")}, "call_us is inf"),
        ({"bandwidth": 3}, "field 'bandwidth' is not known"),
        ({"kernels": {"linear.bfloat16": {"gb_s": 3}}}, "linear.bfloat16: gflop_s is None"),
        ({"kernels": []}, "kernels must be an object"),
        ({"sources": "a text"}, "sources must be a list"),
    ],
)
def test_malformed_hardware(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProfileError) as failure:
        from_dict({**MACHINE.to_dict(), **change}, "mine.json")
    assert str(failure.value).startswith("mine.json: ")
    assert sentence in str(failure.value)


def test_unreadable_hardware(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no hardware 'tpu'; name one of a100, h100, cpu, or a"):
        read_hardware("tpu")
    with pytest.raises(ProfileError, match="cannot be read as hardware"):
        read_hardware(str(tmp_path / "none.json"))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ProfileError, match="not a JSON object"):
        read_hardware(str(tmp_path / "list.json"))

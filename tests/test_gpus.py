"""GPUs as the Python side sees them; the runtime's own tests are in tests/runtime_cpp."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingot.runtime import doctor_command
from ingot.runtime.errors import BadPackage
from ingot.runtime.gpus import gpus
from ingot.runtime.torch_backend import choose_gpu_variant

H100 = {"name": "H100", "architecture": "sm_90", "multiprocessors": 132, "memory_bytes": 85 * 10**9}


def variants(*names: str) -> list[dict[str, Any]]:
    return [{"gpu_architecture": name} for name in names]


def test_gpus_are_there_or_a_sentence_says_why_not() -> None:
    sentence = doctor_command.examine(torch_refused=None)["gpus"]["refused"]
    if sentence is None:
        assert all(gpu["architecture"].startswith("sm_") for gpu in gpus()["devices"])
    else:
        assert "CUDA driver" in sentence


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    doctor_command.run(as_json=True, torch_refused=None)
    assert set(json.loads(capsys.readouterr().out)["gpus"]) == {
        "driver",
        "devices",
        "ops",
        "refused",
    }
    doctor_command.run(as_json=False, torch_refused=None)
    lines = capsys.readouterr().out.splitlines()
    return next(line for line in lines if line.startswith("GPU  "))


def test_doctor_names_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor_command, "gpus", lambda: {"driver": "13.0", "devices": [H100]})
    assert "H100 (sm_90, 85 GB), driver for CUDA 13.0" in shown(capsys)


def test_doctor_says_why_there_are_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> dict[str, Any]:
        raise BadPackage("this machine has no CUDA driver")

    monkeypatch.setattr(doctor_command, "gpus", refuse)
    assert "none: this machine has no CUDA driver" in shown(capsys)


@pytest.mark.parametrize(
    ("capability", "chosen"), [((8, 0), "sm_80"), ((8, 9), "sm_86"), ((9, 0), "sm_90")]
)
def test_the_torch_backend_chooses_as_the_lean_one(
    capability: tuple[int, int], chosen: str
) -> None:
    offered = variants("sm_90", "sm_86", "sm_80")
    assert choose_gpu_variant(offered, capability)["gpu_architecture"] == chosen


def test_the_torch_backend_refuses_another_architecture() -> None:
    with pytest.raises(BadPackage, match="it is for sm_90 and sm_80, and this GPU is sm_75"):
        choose_gpu_variant(variants("sm_90", "sm_80"), (7, 5))

"""`ingot analyze`: a package and the checkpoint it was made from cost the same, on any machine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingot.custom_ops.kv_layout import BLOCK
from ingot.export.subject import of_checkpoint
from ingot.profiling.analysis import (
    GPU_STEP_TOKENS,
    LARGE_WEIGHTS,
    LONE_STEP_TOKENS,
    STEP_TOKENS,
    Subject,
    analyze,
    phases,
    request_of,
)
from ingot.profiling.calls import cost
from ingot.profiling.roofline import from_dict, read_hardware
from ingot.profiling.steps import BLOCK_SIZE
from ingot.runtime import IngotError, ops, speeds
from ingot.runtime.analyze_command import of_package
from tests.conftest import ROOT, ExportPackage
from tests.families import FAMILIES
from tests.test_cli import ingot


def op_costs(found: Subject, sizes: Any) -> list[Any]:
    calls = (call for call in found.calls(sizes) if call.kind == "op")
    return [(call.module, found.kernel(call), cost(call, sizes)) for call in calls]


def assert_same(package: Subject, checkpoint: Subject) -> None:
    """Ops to the byte; of generated code nearly, since only the compiler knows what it fuses."""
    asked = request_of(package, batch=2, prompt=300, context=301)
    for steps in phases("decoder", asked).values():
        for sizes in steps:
            assert op_costs(package, sizes) == op_costs(checkpoint, sizes)
    ours, theirs = (analyze(s, asked, read_hardware("a100")) for s in (package, checkpoint))
    for phase, found in ours["phases"].items():
        for name in ("flops", "read_bytes", "written_bytes", "seconds"):
            assert found[name] == pytest.approx(theirs["phases"][phase][name], rel=0.1)
    for name in ("weight_bytes", "kv_bytes"):
        assert ours["memory"][name] == theirs["memory"][name]
    assert ours["model"]["parameters"] == theirs["model"]["parameters"]


def test_package_and_checkpoint_agree(demo_package: Path, demo_checkpoint: Path) -> None:
    assert_same(of_package(demo_package), of_checkpoint(demo_checkpoint))


def test_windows_agree(export_package: ExportPackage) -> None:
    kind, config = FAMILIES["mistral-window"]
    package = export_package(kind, **config)
    assert_same(of_package(package), of_checkpoint(package.parent / "checkpoint"))


def test_steps_and_blocks_are_as_long_as_the_runtimes() -> None:
    limits = (ROOT / "runtime" / "csrc" / "package.cpp").read_text()
    assert f" kStepTokens = {STEP_TOKENS}, kGpuStepTokens = {GPU_STEP_TOKENS};" in limits
    lone = f"kLoneStepTokens = {LONE_STEP_TOKENS}, kLargeWeights = {LARGE_WEIGHTS:_};"
    assert lone.replace("_", "'") in limits
    assert BLOCK_SIZE == BLOCK


def test_json_is_complete(demo_package: Path) -> None:
    arguments = ("analyze", demo_package, "--hardware", "h100", "--batch", 4, "--prompt", 64)
    result = json.loads(ingot(*arguments, "--json").stdout)
    assert result.keys() == {
        "source",
        "model",
        "hardware",
        "request",
        "memory",
        "phases",
        "modules",
    }
    assert result["phases"].keys() == {"prefill", "decode"}
    assert result["request"] == {"batch": 4, "prompt": 64, "context": 64, "step_tokens": 2048}
    for phase, found in result["phases"].items():
        parts = [module[phase] for module in result["modules"] if phase in module]
        for name in ("seconds", "flops", "read_bytes", "written_bytes"):
            assert sum(part[name] for part in parts) == pytest.approx(found[name])


def test_table_folds_layers(demo_checkpoint: Path) -> None:
    shown = ingot("analyze", demo_checkpoint, "--hardware", "a100", "--quant", "int8").stdout
    assert "5,770,496, float32, int8" in shown
    assert "model.layers.* x6" in shown
    assert "  mlp.down_proj  " in shown
    assert "layers.0" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) < 60


def test_this_machine_is_measured(demo_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of kernel gets speeds, and what was measured can be saved and read again."""
    monkeypatch.setattr(speeds, "_BUFFER_BYTES", 4 << 20)
    monkeypatch.setattr(speeds, "_SECONDS", 0.001)
    package = of_package(demo_package)
    found = speeds.measure(package, request_of(package), threads=2)
    linears = {"linear.float32", "linear_activated.float32"}
    assert found.kernels.keys() == {*linears, "paged_attention.float32"}
    assert all(speed.gb_s > 0 and speed.gflop_s > 0 for speed in found.kernels.values())
    assert ", 2 threads, x86-64-v" in found.name
    weights, cache = speeds._buffers(demo_package)
    assert weights[:2].tobytes() == b"PK"  # the package's own bytes
    assert (cache == speeds._BYTE).all()
    assert from_dict(json.loads(json.dumps(found.to_dict())), "saved.json") == found


@pytest.mark.parametrize("recipe", [None, "int8", "int4-a8"])
@pytest.mark.parametrize("kv_dtype", ["float32", "int8"])
def test_every_layout_is_measured(
    recipe: str | None, kv_dtype: str, demo_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speeds, "_BUFFER_BYTES", 4 << 20)
    monkeypatch.setattr(speeds, "_SECONDS", 0.001)
    found = of_checkpoint(demo_checkpoint, dtype="bfloat16", recipe=recipe, kv_dtype=kv_dtype)
    kernels = speeds.measure(found, request_of(found, batch=3, prompt=40, context=70)).kernels
    linears = {
        None: {"linear.bfloat16", "linear_activated.bfloat16"},
        "int8": {"linear_w8.g128.a16", "linear_w8_activated.g128.a16"},
        "int4-a8": {"linear_w4.g128.a8", "linear_w4_activated.g128.a8", "linear_w8.g128.a8"},
    }
    assert kernels.keys() == {*linears[recipe], f"paged_attention.{kv_dtype}"}


def test_encoders_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speeds, "_SECONDS", 0.001)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = {"architectures": ["ViTForImageClassification"], "num_attention_heads": 4, **sizes}
    (tmp_path / "config.json").write_text(json.dumps({**config, "image_size": 32}))
    found = of_checkpoint(tmp_path)
    kernels = speeds.measure(found, request_of(found, batch=2)).kernels
    # The last layer's rows are few: those that the head reads.
    linears = {"linear", "linear_activated", "linear_many", "linear_many_activated"}
    assert kernels.keys() == {f"{op}.float32" for op in (*linears, "attention")}


def test_ops_say_what_is_wrong() -> None:
    x, weight = np.ones((1, 8), np.float32), np.ones((1, 9, 64), np.float32)
    call = ops.bind("linear", x, weight, None, 64, out=np.empty((1, 64), np.float32))
    with pytest.raises(IngotError, match=r"linear: .*weight"):
        call()


def test_ops_compute() -> None:
    x, weight = np.arange(8, dtype=np.float32)[None], np.ones((1, 8, 64), np.float32)
    out = np.empty((1, 64), np.float32)
    ops.bind("linear", x, weight, None, 64, out=out)()
    assert (out == 28).all()
    assert re.fullmatch(r"x86-64-v[234](-bf16|-amx)?", ops.level())


def test_mistakes(demo_package: Path, tmp_path: Path) -> None:
    malformed = tmp_path / "mine.json"
    malformed.write_text('{"memory_gb": 8, "read_gb_s": -3, "gflop_s": {"float32": 1}}')
    (tmp_path / "notes.txt").write_text("no package")
    for arguments, sentence in {
        (demo_package, "--hardware", "tpu"): "name one of a100, h100, cpu, or a .json file",
        (demo_package, "--hardware", malformed): "read_gb_s is -3; it must be a positive number",
        (demo_package, "--context", 100_000): "--context is 100000, but",
        (demo_package, "--quant", "int4"): "a package's dtypes and weights are as exported",
        (tmp_path / "notes.txt",): "notes.txt",
        (tmp_path / "nowhere.pt2",): "nowhere.pt2",
        (tmp_path,): "config.json is missing",
    }.items():
        result = ingot("analyze", *arguments)
        assert result.returncode == 2, arguments
        assert result.stderr.startswith("ingot: ")
        assert sentence in result.stderr
        assert result.stderr.count(os.linesep) == 1

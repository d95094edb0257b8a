"""Whole packages for GPUs without one: exported for an architecture, opened and run by the lean
runtime over the tests' driver (fake_driver.h). It holds each call against what hardware allows and
each launch against its machine code; the kernels' results come from Triton's interpreter and from
the emulation of CUDA's threads. Their logits are transformers'."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bench_model
import numpy as np
import pytest
import torch
from gpu import carried

import ingot
from ingot import native
from ingot.export import export_checkpoint, torch_versions
from ingot.export.cuda import kernels
from tests.checkpoints import make_checkpoint, reference
from tests.families import FAMILIES
from tests.test_cli import ingot as cli

if not torch_versions.can_target():
    pytest.skip("this torch does not export for GPUs", allow_module_level=True)
if find_spec("triton") is None:
    pytest.skip(f"needs triton {torch_versions.triton()}", allow_module_level=True)
ROOT = Path(__file__).parents[2]
PROMPT = [5, 17, 250, 3, 88, 121, 7]
# Of the largest logit. In bfloat16 activations are rounded too, five times a layer.
TOLERANCES = {"float32": 1e-5, "bfloat16": 0.02}
SHAPE = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The kernels that are compiled: sources and configurations. Nothing comes from a cache."""
    from torch._inductor.codecache import PyCodeCache

    found: dict[str, Any] = {}
    compile_kernel = kernels.compile_kernel

    def noting(name: str, source: str) -> None:
        compile_kernel(name, source)
        match = kernels._SOURCE.fullmatch(source)
        assert match is not None
        tuner: Any = getattr(PyCodeCache.load(match[1]), name)
        facts = {"source": match[1], "blocks": tuner.configs[0].kwargs}
        assert found.setdefault(name, facts) == facts  # else launches could not be told apart

    monkeypatch.setattr(kernels, "compile_kernel", noting)
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path / "cache"))
    return found


def emulated(folder: Path) -> Path:
    """The native libraries, with the ops emulated."""
    folder.mkdir(exist_ok=True)
    built = native.find("libingot.so.1").parent
    for library in (*built.glob("*.so.1"), *built.glob("tests/*.so.1")):
        (folder / library.name).unlink(missing_ok=True)
        (folder / library.name).symlink_to(library)
    return folder


def run(package: Path, kernels: dict[str, Any], capability: int, folder: Path) -> Any:
    tokens = ",".join(map(str, PROMPT))
    return interpreted("run_package", folder, kernels, package, None, tokens, capability=capability)


def interpreted(
    module: str, folder: Path, kernels: dict[str, Any], *arguments: object, capability: int
) -> Any:
    """As `child`; None stands for the file with the kernels."""
    folder.mkdir(exist_ok=True)
    noted = folder / "kernels.json"
    noted.write_text(json.dumps(kernels))
    own = {"TRITON_INTERPRET": "1", "INGOT_NATIVE_DIR": str(emulated(folder / "native"))}
    given = (noted if argument is None else argument for argument in arguments)
    return child(module, *given, capability=capability, **own)


def child(module: str, *arguments: object, capability: int, **own: str) -> Any:
    """What a module of this folder writes in a process that has the tests' driver."""
    driver = native.find("tests/fake_driver/libcuda.so.1").parent
    own |= {"LD_LIBRARY_PATH": str(driver), "FAKE_CUDA_CAPABILITY": str(capability)}
    ended = subprocess.run(
        [sys.executable, "-m", f"tests.cuda.{module}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}/scripts", **own},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def logits_of(checkpoint: Path, dtype: str, quant: str | None, tokens: list[int]) -> Any:
    """transformers', or of a quantised model the CPU's, which reads the same codes."""
    if quant is not None:
        package = checkpoint.with_suffix(".cpu.pt2")
        export_checkpoint(checkpoint, package, dtype=dtype, quant=quant)
        with ingot.load(package).session() as session:
            return session.logits(tokens)
    model = reference(checkpoint).to(getattr(torch, dtype)).float()
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


@pytest.mark.parametrize(
    ("family", "dtype", "architecture", "quant"),
    [
        ("llama", "bfloat16", "90", None),
        pytest.param("llama", "bfloat16", "80", "int4", marks=pytest.mark.full),
        pytest.param("gemma2-low-caps-untied", "float32", "86", None, marks=pytest.mark.full),
        pytest.param("gpt2", "float32", "89", None, marks=pytest.mark.full),
    ],
)
def test_a_package_gives_the_models_logits(
    tmp_path: Path,
    noted: dict[str, Any],
    family: str,
    dtype: str,
    architecture: str,
    quant: str | None,
) -> None:
    """Of a prompt, and of greedy tokens: each is the likeliest, or as good as that."""
    kind, config = {"llama": ("Llama", SHAPE), **FAMILIES}[family]
    checkpoint, package = make_checkpoint(tmp_path / "model", kind, **config), tmp_path / "m.pt2"
    options: dict[str, Any] = {"device": "cuda", "cuda_arch": architecture, "quant": quant}
    export_checkpoint(checkpoint, package, dtype=dtype, **options)
    result = run(package, noted, int(architecture), tmp_path)
    made, places = result["tokens"], range(len(PROMPT) - 1, len(PROMPT) - 1 + len(result["tokens"]))
    expected = logits_of(checkpoint, dtype, quant, PROMPT + made)
    tolerance = TOLERANCES[dtype] * np.abs(expected).max()
    assert np.abs(np.array(result["logits"]) - expected[: len(PROMPT)]).max() < tolerance
    assert (expected.max(1)[places] - expected[places, made]).max() < tolerance
    assert result["again"] == result["logits"]
    counts = result["counts"]
    assert counts["captures"] == 1
    assert counts["graph_launches"] == len(made) - 2
    measured = result["measured"]
    assert set(measured["bench"]) == {"prefill_tok_s", "decode_tok_s", "bytes_per_token"}
    assert measured["profile"]["ceilings"] == {}
    named = {row["name"] for row in measured["profile"]["kernels"]}
    assert set(noted) <= named
    if architecture == "90":
        refuses_as_hardware_would(tmp_path, noted)


@pytest.mark.full
def test_a_package_that_is_carried(
    tmp_path: Path, noted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its weights, that is, which are made up where it runs (scripts/gpu/carried.py), and
    held against the CPU's there (packages.py)."""
    shape = {"architectures": ["LlamaForCausalLM"], "vocab_size": 300, "num_hidden_layers": 2}
    shape |= {"intermediate_size": 256, "max_position_embeddings": 1024, **SHAPE}
    monkeypatch.setitem(bench_model.SHAPES, "tiny", shape)
    monkeypatch.setattr(carried, "ROOT", tmp_path)
    monkeypatch.setattr(carried, "ARCHITECTURES", "90")
    for recipe in ("bf16", "int4"):
        light, _ = (carried.make("tiny", recipe, device) for device in ("cuda", "cpu"))
        whole = carried.whole("tiny", recipe)
        weights = [zipfile.ZipFile(p).getinfo("model/ingot/weights.bin") for p in (light, whole)]
        assert weights[0].file_size == 0
        assert weights[1].file_size > 300_000
        assert cli("verify", whole).returncode == 0
        arguments = (tmp_path, None, "tiny", recipe)
        rows = interpreted("run_checks", tmp_path / recipe, noted, *arguments, capability=90)
        assert len(rows) > 8
        assert [row for row in rows if "passed" not in row] == []


def refuses_as_hardware_would(folder: Path, kernels: dict[str, Any]) -> None:
    """Else that the package ran would say nothing of its calls."""
    cubin = next((folder / "cache" / "triton").glob("*/triton_poi_*.cubin"))
    signature = re.search(r"'signature': \{.*?\}", kernels[cubin.stem]["source"])
    assert signature is not None
    called = "refused_launches", cubin, cubin.stem, signature[0].count("'*")
    found = child(*called, capability=90)
    granted = {"as it should be", "within an allocation", "all is asked for", "and taken"}
    assert {name for name, status in found.items() if status == 0} == granted
    assert len(found) > 2 * len(granted)
    assert child(*called, capability=89) == {"load": 209}  # CUDA_ERROR_NO_BINARY_FOR_GPU

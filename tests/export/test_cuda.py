"""Export for GPUs, where there is none: what is refused, what code is made, what it calls."""

from __future__ import annotations

import re
import subprocess
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from ingot import native
from ingot.custom_ops.shims import shim_names
from ingot.export import ExportError, export_checkpoint, torch_versions
from ingot.export.cuda import link
from ingot.export.cuda.architecture import ARCHITECTURES, find_architectures
from ingot.export.cuda.program import on_gpu
from ingot.export.targets import find_targets
from tests.checkpoints import make_llama
from tests.conftest import manifest_of
from tests.test_cli import ingot

if not torch_versions.can_target():
    pytest.skip("this torch does not export for GPUs", allow_module_level=True)
with_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason=f"needs triton {torch_versions.triton()}"
)


@with_triton
def test_architectures_come_highest_first() -> None:
    found = find_architectures("80, sm_90,80")
    assert [architecture.name for architecture in found] == ["sm_90", "sm_80"]
    assert find_targets("cuda", cuda_arch="86")[0].facts == {"gpu_architecture": "sm_86"}


def test_names_that_are_refused() -> None:
    for names in ("70", "90,", "hopper"):
        with pytest.raises(ExportError, match="unknown GPU architecture '.*'; choose among 80, 86"):
            find_architectures(names)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to take it from")
def test_without_a_gpu_the_architecture_is_to_be_named() -> None:
    with pytest.raises(ExportError, match="no GPU here .* --cuda-arch 80,90"):
        find_architectures(None)


def test_a_gpu_that_no_code_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(ExportError, match="of compute capability 7.5, runs no code"):
        find_architectures(None)


def test_a_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingot.export.cuda.architecture.find_spec", lambda _: None)
    with pytest.raises(ExportError, match=f"pip install triton=={torch_versions.triton()}"):
        find_architectures("90")


def test_an_older_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_versions, "installed", lambda: "2.12.1+cpu")
    with pytest.raises(ExportError, match="2.12.1.cpu has not been tried .* take torch 2.13"):
        find_architectures("90")


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    refused = {
        ("--cuda-arch", "90"): "--cuda-arch is for GPUs; give --device cuda too",
        ("--device", "cuda", "--isa", "x86-64-v3"): "--isa is for CPUs; with --device cuda",
        ("--device", "cuda", "--cuda-arch", "75"): "unknown GPU architecture '75'",
    }
    for options, sentence in refused.items():
        ended = ingot("export", tmp_path, "-o", tmp_path / "model.pt2", *options)
        assert ended.returncode == 2
        assert sentence in ended.stderr


class Small(nn.Module):
    """Tied weights, a number that is a tensor, a tensor made on a device, and a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))
        self.tied = self.weight
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.weight + self.tied[0] + torch.arange(4)
        scaled = x * self.scale
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (scaled,))  # type: ignore[no-any-return]


def test_a_graph_moves_to_a_gpu_that_is_not_there() -> None:
    program = torch.export.export(
        Small(), (torch.ones(3, 4),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
    )
    before = str(program.graph)
    module, (x,) = on_gpu(program)
    assert str(program.graph) == before
    assert program.state_dict["weight"].device.type == "cpu"
    assert isinstance(x, FakeTensor)
    tensors = [x, *module.state_dict().values()]
    graphs = [part for part in module.modules() if isinstance(part, torch.fx.GraphModule)]
    for part in graphs:
        for node in part.graph.nodes:
            tensors += [t for t in [node.meta.get("val")] if isinstance(t, Tensor)]
            assert torch.device("cpu") not in (*node.args, *node.kwargs.values())
            assert node.op != "get_attr" or node.target != "scale"
    assert {tensor.device for tensor in tensors} == {torch.device("cuda", 0)}
    assert len(graphs) == 3
    full = torch.ops.aten.full.default
    (scale,) = (node for node in graphs[0].graph.nodes if node.target == full)
    assert scale.args == ([], 0.5)


def test_the_linker_is_given_all_names() -> None:
    found = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=just-symbols", link.stand_in()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(found.stdout.split()) == link.provided()
    assert {"ingot_cuLaunchKernel", "ingot_cudaGetLastError", *shim_names("cuda")} < link.provided()


def test_the_library_has_the_names_that_code_is_linked_against() -> None:
    """All but the ops' shims where there was no nvcc to compile the ops."""
    library = native.find(link.LIBRARY)
    found = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=just-symbols", library],
        capture_output=True,
        text=True,
        check=True,
    )
    lacking = link.provided() - set(found.stdout.split())
    compiled = (library.parent / "libingot_ops_cuda.so.1").exists()
    assert lacking == (set() if compiled else set(shim_names("cuda")))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("cuda")
    path = folder / "model.pt2"
    return path, export_checkpoint(
        make_llama(folder / "llama"), path, dtype="bfloat16", device="cuda", cuda_arch="90"
    )


@with_triton
def test_a_package_for_gpus(exported: tuple[Path, dict[str, Any]]) -> None:
    manifest = manifest_of(exported[0])
    assert manifest["device"] == "cuda"
    assert manifest["producer"]["triton"] == torch_versions.triton()
    entry = "ingot/variants/sm_90/model.so"
    kind = {"device": "cuda", "gpu_architecture": "sm_90"}
    assert manifest["variants"] == [{"name": "sm_90", **kind, "entry": entry, "requires": []}]


@with_triton
def test_its_code_needs_neither_cuda_nor_torch(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    code = tmp_path / "model.so"
    with zipfile.ZipFile(exported[0]) as archive:
        code.write_bytes(archive.read("model/ingot/variants/sm_90/model.so"))
    found = subprocess.run(["readelf", "-d", code], capture_output=True, text=True, check=True)
    needed = re.findall(r"NEEDED.*\[(.*)\]", found.stdout)
    ours = ["libingot_host.so.1", "libingot_cuda.so.1"]
    assert [
        name
        for name in needed
        if not name.startswith(("libstdc++", "libgcc", "libc.", "ld-", "libm."))
    ] == ours
    assert not set(re.findall(rb"sm_\d+", code.read_bytes())) - {b"sm_90"}


@with_triton
def test_its_calls_are_known(exported: tuple[Path, dict[str, Any]]) -> None:
    """Each launch and op is an event of a module, as on the CPU."""
    calls = exported[1]["facts"]["calls"]
    ops = [call["name"] for call in calls if call["kind"] == "op"]
    kernels = [call for call in calls if call["kind"] == "kernel"]
    assert ops.count("aoti_torch_cuda_paged_attention") == 2
    assert ops.count("aoti_torch_cuda_linear") == 3 * 2 + 1
    assert ops.count("aoti_torch_cuda_linear_activated") == 2
    assert len(ops) + len(kernels) == len(calls)
    assert all(call["name"].startswith("triton_") and call["module"] for call in kernels)
    assert {call["module"] for call in kernels} >= {
        "model.layers.1.post_attention_layernorm",
        "model.norm",
    }


@pytest.mark.full
@with_triton
def test_one_weight_store_for_all_architectures(tmp_path: Path) -> None:
    path, names = tmp_path / "model.pt2", ",".join(a.name for a in ARCHITECTURES)
    checkpoint = make_llama(tmp_path / "llama")
    export_checkpoint(checkpoint, path, dtype="bfloat16", device="cuda", cuda_arch=names)
    manifest = manifest_of(path)
    assert [v["name"] for v in manifest["variants"]] == ["sm_90", "sm_89", "sm_86", "sm_80"]
    on_cpu = tmp_path / "cpu.pt2"
    export_checkpoint(checkpoint, on_cpu, dtype="bfloat16")
    layouts = [
        {name: (c["shape"], c["dtype"]) for name, c in manifest_of(p)["constants"].items()}
        for p in (path, on_cpu)
    ]
    assert layouts[0] == layouts[1]

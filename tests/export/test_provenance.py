"""The calls that a compile record lists are those that a run makes, each with module and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ingot
from ingot import models
from ingot.export import export_checkpoint, export_module
from ingot.export.provenance import as_run
from ingot.profiling.calls import Call, cost
from ingot.profiling.reports.report import read_record
from ingot.runtime import tracing
from tests.checkpoints import make_checkpoint, make_encoder
from tests.conftest import ExportPackage
from tests.families import FAMILIES
from tests.test_module import BATCH, LENGTH, Mixed

# A step of four sequences, so that no two letters have one value.
SIZES = {"T": 7, "B": 4, "P": 3, "R": 5, "context": 90, "pairs": 120}


def calls_of(package: Path) -> list[Call]:
    return [Call.from_dict(call) for call in read_record(package).facts["calls"]]


def traced(run: Callable[[], object]) -> list[str]:
    """Names of the kernel and op events of the last step, in order."""
    _, trace = tracing.traced(run)
    begin = max((step.start_us for step in trace.steps()), default=0.0)
    events = sorted(trace.events, key=lambda event: event.start_us)
    calls = [e for e in events if e.category in ("kernel", "op") and e.start_us >= begin]
    return [event.name for event in calls]


def check(package: Path, run: Callable[[], object]) -> list[Call]:
    calls = calls_of(package)
    assert [call.name for call in calls] == traced(run)
    assert sum(bool(call.module) for call in calls) >= 0.95 * len(calls)
    assert all(call.nodes and call.sources and call.outputs for call in calls)
    return calls


def of_module(calls: list[Call], module: str) -> Call:
    (call,) = (call for call in calls if call.module == module and call.kind == "op")
    return call


def test_a_decoder(demo_package: Path) -> None:
    def run() -> None:
        with ingot.load(demo_package).session() as session:
            list(session.generate([1, 2, 3], max_new_tokens=2, ignore_eos=True))

    calls = check(demo_package, run)
    assert Counter(call.kind for call in calls)["op"] == 1 + 6 * 5 + 1
    down = of_module(calls, "model.layers.3.mlp.down_proj")
    assert [source.partition(":")[0] for source in down.sources] == ["models/layers.py"]
    assert down.outputs == ({"dtype": "float32", "shape": ["T", 256]},)
    assert cost(down, SIZES).flops == 2 * 7 * 768 * 256
    assert cost(down, SIZES).read_bytes == (7 + 256) * 768 * 4
    attention = of_module(calls, "model.layers.3.self_attn")
    assert cost(attention, SIZES).flops == 4 * 120 * 4 * 64
    assert cost(attention, SIZES).written_bytes == 7 * (4 + 2 * 2) * 64 * 4
    head = cost(of_module(calls, "lm_head"), SIZES)
    assert head.flops == 2 * 5 * 256 * 4096


def test_a_fused_kernel_lists_what_it_serves(demo_package: Path) -> None:
    """The first layer's second norm, into which the residual sum went."""
    norm = "model.layers.0.post_attention_layernorm"
    (call,) = (call for call in calls_of(demo_package) if call.module == norm)
    assert call.kind == "kernel"
    assert set(call.modules) == {"model.layers.0", norm}
    assert {source.partition(":")[0] for source in call.sources} == {
        "models/decoder.py",
        "models/layers.py",
    }
    # The stream, what the block before added and attended are read; their sum and the mean square
    # are kept; 8 nodes, of 256 and of 1 a token.
    found = cost(call, SIZES)
    assert found.read_bytes == (3 * 7 * 256 + 256) * 4
    assert found.written_bytes == 7 * (2 * 256 + 1) * 4
    assert found.flops == 7 * (6 * 256 + 2)


def test_a_sliding_window(export_package: ExportPackage) -> None:
    kind, config = FAMILIES["gemma2-windows"]
    package = export_package(kind, **config)
    layers = [call for call in calls_of(package) if call.name.endswith("cpu_paged_attention")]
    near, far = (cost(call, {**SIZES, "B": 1, "context": 90, "pairs": 1}) for call in layers)
    assert near.read_bytes == far.read_bytes - (90 - (11 + 7 - 1)) * 2 * 2 * 32 * 4


def test_a_quantised_decoder(demo_checkpoint: Path, tmp_path: Path) -> None:
    package = tmp_path / "model.pt2"
    export_checkpoint(demo_checkpoint, package, quant="int4-a8", group_size=64)

    def run() -> None:
        with ingot.load(package).session() as session:
            list(session.generate([1, 2, 3], max_new_tokens=1))

    calls = check(package, run)
    up = of_module(calls, "model.layers.0.mlp.gate_up_proj")
    assert up.name == "aoti_torch_cpu_linear_w4_activated"
    assert cost(up, SIZES).flops == 2 * 7 * 256 * 2 * 768
    assert cost(up, SIZES).written_bytes == 7 * 768 * 4


def test_an_encoder(export_package: ExportPackage) -> None:
    package = export_package("BertModel", vocab_size=300)
    inputs = {"tokens": [1, 2, 3], "token_type_ids": [0] * 3, "positions": [0, 1, 0]}
    calls = check(package, lambda: ingot.load(package).run(**inputs, query_start=[0, 2, 3]))
    assert cost(of_module(calls, "layers.1.attention"), SIZES).flops == 4 * 120 * 64


def test_an_image_classifier(export_package: ExportPackage) -> None:
    package = export_package("ViTForImageClassification", num_labels=3)
    pixels = np.zeros((2, 3, 32, 32), np.float32)
    calls = check(package, lambda: ingot.load(package).run(pixel_values=pixels))
    attention = of_module(calls, "layers.1.attention")
    assert cost(attention, {"B": 3}).flops == 4 * 3 * 17 * 17 * 64


def test_a_quantised_encoder(export_package: ExportPackage, tmp_path: Path) -> None:
    """Of an MLP without a gate the first linear computes the activation, too."""
    checkpoint = export_package("ViTForImageClassification", num_labels=3).parent / "checkpoint"
    package = tmp_path / "model.pt2"
    export_checkpoint(checkpoint, package, quant="int8", activation_bits=8)
    calls = calls_of(package)
    up = of_module(calls, "layers.0.mlp.up_proj")
    assert up.name == "aoti_torch_cpu_linear_w8_activated"
    assert not [call.name for call in calls if call.kind == "kernel" and "gelu" in call.name]


def test_a_module(tmp_path: Path) -> None:
    package = tmp_path / "mixed.pt2"
    shapes = ({0: BATCH, 1: LENGTH}, {0: BATCH, 1: LENGTH})
    args = (torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool))
    export_module(Mixed(), args, package, dynamic_shapes=shapes)
    x, mask = np.zeros((2, 7, 8), np.float32), np.ones((2, 7), bool)
    names = traced(lambda: ingot.load(package).run(x=x, mask=mask))
    calls = calls_of(package)
    assert [call.name for call in calls] == names
    assert cost(of_module(calls, "qkv"), {"batch": 2, "length": 7}).flops == 2 * 14 * 8 * 24


def test_an_event_that_nothing_is_known_of_has_no_module() -> None:
    known = [Call("cpp_fused_b_1", "kernel", module="b"), Call("aoti_torch_cpu_linear", "op", "a")]
    kernel, linear = "graph_0_cpp_fused_b_1", "aoti_torch_cpu_linear"
    records = {n: f'RAIIAtenRecordFunctionHandle record_{n}_("{n}", 0);' for n in (kernel, linear)}
    wrapper = [records[linear], records[linear], "    cpp_fused_b_1((float*)(buf4.data_ptr()));"]
    calls: list[Any] = as_run(known, "\n".join(wrapper), records[kernel])
    assert [(call.name, call.module) for call in calls] == [
        ("aoti_torch_cpu_linear", "a"),
        ("aoti_torch_cpu_linear", ""),
        ("graph_0_cpp_fused_b_1", "b"),
    ]


def test_aliases(tmp_path: Path) -> None:
    """What the checkpoint calls otherwise: several linears that are one, and other names."""

    def aliases(folder: Path) -> dict[str, str]:
        plan = models.plan(folder)
        return plan.model.aliases(plan.on_disk)

    llama = aliases(make_checkpoint(tmp_path / "llama"))
    assert llama["model.layers.1.self_attn.k_proj"] == "model.layers.1.self_attn.qkv_proj"
    assert llama["model.layers.1.mlp.up_proj"] == "model.layers.1.mlp.gate_up_proj"
    assert "model.layers.1.mlp.down_proj" not in llama
    bert = aliases(make_encoder(tmp_path / "bert", "BertModel", vocab_size=300))
    assert bert["encoder.layer.1.attention.self.query"] == "layers.1.attention.qkv_proj"
    assert bert["encoder.layer.1.output.LayerNorm"] == "layers.1.mlp_norm"
    assert bert["encoder.layer.1"] == "layers.1"

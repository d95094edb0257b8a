"""What a layer more costs an export: lines of C++, no kernel and no function; and what memory."""

from __future__ import annotations

import ctypes
import hashlib
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ingot import models, quant
from ingot.export import ExportError, contracts, repeated, spill
from ingot.export.archive import ALIGNMENT, ArchiveWriter
from ingot.export.compile import compile, inductor_for
from ingot.export.isa import machine_level
from ingot.export.weights import WeightStore
from ingot.export.wrapper import Generated, with_table
from ingot.profiling.record import Recorder
from tests.checkpoints import make_checkpoint


class Texts:
    """In place of the build: keeps what would be compiled."""

    cached: dict[str, bool] = {}
    device = "cpu"

    def __init__(self, folder: Path) -> None:
        self._object = folder / "model.so"

    def add_model(self, graph: Generated, unrecorded: str) -> None:
        self.model = graph

    def add_functions(self, name: str, graphs: dict[str, Generated], caller: str) -> None:
        self.functions, self.caller = graphs, caller

    def link(self) -> Path:
        self._object.write_bytes(b"")
        return self._object

    def sources(self) -> list[Path]:
        return []


def generated(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, **config: Any) -> Any:
    """The C++ of a model, and what the record states of it."""
    monkeypatch.setenv("INGOT_CACHE_DIR", str(folder / "cache"))
    checkpoint = make_checkpoint(folder / "checkpoint", kind, **config)
    contract = contracts.of_checkpoint(models.load(checkpoint), checkpoint)
    texts: Any = Texts(folder)
    with inductor_for(contract, machine_level()) as options, repeated.library() as library:
        with repeated.stepping_aside(contract.blocks, library) as watch:
            program = contracts.capture(contract)
        recorder = Recorder("compile")
        made = compile(program, watch.blocks, contract, "key", options, texts, recorder)
    return texts, made.facts


def test_a_layer_more_is_a_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, few_facts = generated(tmp_path / "2", monkeypatch, "Llama", num_hidden_layers=2)
    many, many_facts = generated(tmp_path / "6", monkeypatch, "Llama", num_hidden_layers=6)
    assert few.functions.keys() == many.functions.keys() == {"blocks_0"}
    for one, other in (
        (few.functions["blocks_0"], many.functions["blocks_0"]),
        (few.model, many.model),
    ):
        assert one.kernels.count('extern "C"') == other.kernels.count('extern "C"')
    assert many.caller.count("\n") - few.caller.count("\n") == 4
    lines = [with_table(texts.model.wrapper).count("\n") for texts in (few, many)]
    assert lines[1] - lines[0] <= 4 * 20
    few_calls, many_calls = few_facts["calls"], many_facts["calls"]
    added = {call["module"] for call in many_calls} - {call["module"] for call in few_calls}
    assert added >= {f"model.layers.{i}.mlp.down_proj" for i in range(2, 6)}
    assert len(many_calls) - len(few_calls) == 4 * 7  # five ops and two kernels


def test_each_kind_of_layer_is_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = {"sliding_window": 10, "sliding_window_pattern": 2, "num_hidden_layers": 4}
    texts, _ = generated(tmp_path, monkeypatch, "Gemma3", head_dim=32, **windows)
    assert texts.functions.keys() == {"blocks_0", "blocks_1"}
    order = [
        line.split("(")[1].split(",")[0]
        for line in texts.caller.splitlines()
        if "run(blocks" in line
    ]
    assert order == ["blocks_0", "blocks_1"] * 2


def test_a_block_ends_what_it_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most lives at once, in the first product of the last MLP, the stream is one tensor."""
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3}
    texts, facts = generated(tmp_path, monkeypatch, "Llama", **sizes)
    assert "Blocks<2> run({Input(x0, true), Input(x1, true)}, " in texts.caller
    call = r"_blocks\(buf\d+\.release\(\), buf\d+\.release\(\), "
    assert re.search(call, texts.model.wrapper)
    inner, x, stream, angles = 256, 64, 64, 2 * 64 // 4 // 2  # 4 heads
    floats = inner + x + stream + angles + 1  # of a norm's sum
    assert facts["memory_plan"]["peak_bytes"] == f"{floats * 4}*T"


CALL = "aoti_torch_cpu_blocks(buf1, buf2, std::array<AtenTensorHandle, 1>{arg0_1.get()}, &buf3);\n"


@pytest.mark.parametrize(
    ("call", "after", "given"),
    [
        (CALL, "buf1.reset();\nbuf2.reset();", [True, True]),
        (CALL, "buf1.reset();\nauto buf4 = std::move(buf2);  // reuse", [True, False]),
        (CALL, "kernel(buf1.data_ptr());\nbuf1.reset();\nbuf2.reset();", [False, True]),
        (CALL, "buf2.reset();", [False, True]),  # what is never freed is not ours to free
        (CALL.replace("buf2", "buf1"), "buf1.reset();", [False, False]),
        (CALL.replace("buf1", "arg1_1"), "arg1_1.reset();\nbuf2.reset();", [False, True]),
        (CALL.replace("buf1", "wrap(buf1, 2)"), "buf1.reset();\nbuf2.reset();", [False, False]),
    ],
)
def test_only_what_nobody_else_reads_is_given_away(
    call: str, after: str, given: list[bool]
) -> None:
    blocks = repeated.Blocks(None, (), results=2)
    text, found = blocks.give(f"buf1 = made();\n{call}{after}", "cpu")
    assert found == given
    assert text.count(".release()") == sum(given)
    assert text.replace(".release()", "") == f"buf1 = made();\n{call}{after}"


def anonymous_bytes() -> int:
    """Memory that lies in no file, without what the allocator keeps for later (malloc_trim(3))."""
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


@pytest.mark.parametrize("recipe", [None, "int8"])
def test_loaded_weights_lie_in_a_file(tmp_path: Path, recipe: str | None) -> None:
    config = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
    plan = models.plan(make_checkpoint(tmp_path / "model", **config))
    plain = quant.load(models.plan(tmp_path / "model"), recipe and quant.find(recipe))
    before = anonymous_bytes()
    with spill.Spill(tmp_path) as kept:
        model = quant.load(plan, recipe and quant.find(recipe), keep=kept.keep)
    weights = sum(t.nbytes for t in model.parameters())
    assert anonymous_bytes() - before < weights / 8
    assert not list(tmp_path.glob("*tmp*"))
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_kept_weights_are_those_of_the_package(tmp_path: Path) -> None:
    first = torch.arange(1 << 15, dtype=torch.int32).view(2, -1)
    tensors = {"a": first, "odd": torch.ones(3), "b": first + 1, "a again": first.clone()}
    path = tmp_path / "model.pt2"
    with ArchiveWriter(path) as archive:
        store = WeightStore(archive.begin("weights"))
        kept = {name: store.keep(tensor) for name, tensor in tensors.items()}
        assert kept["a"].data_ptr() != kept["a again"].data_ptr()
        store.plan(kept, [*kept])
        store.end()
    for name, tensor in tensors.items():
        assert torch.equal(kept[name], tensor)  # the file is elsewhere now
    facts = store.constants
    assert facts["a"]["offset"] == facts["a again"]["offset"] != facts["b"]["offset"]
    with zipfile.ZipFile(path) as file:
        data = file.read("model/weights")
    for name, fact in facts.items():
        begin, size = (int(str(fact[part])) for part in ("offset", "nbytes"))
        assert begin % ALIGNMENT == 0
        assert data[begin : begin + size] == tensors[name].numpy().tobytes()
    assert len(data) == 2 * first.nbytes + 12
    assert archive.entries["weights"]["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_full_disk_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with spill.Spill(tmp_path) as kept, open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(kept, "_file", full)
        with pytest.raises(ExportError, match="No space left on device; nothing was left"):
            kept.keep(torch.zeros(1 << 16))

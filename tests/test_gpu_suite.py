"""scripts/gpu_suite where there is no GPU: its table, what it counts, how its parts end."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gpu import carried, ops, static_llama, suite
from gpu.table import table

from ingot.custom_ops.linear import pack_linear
from ingot.custom_ops.quantised_layout import Layout
from ingot.custom_ops.quantised_linear import random_weight
from ingot.export.archive import ArchiveWriter

ROOT = Path(__file__).parents[1]
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}


@pytest.mark.skipif(not suite.no_gpu(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    ended = subprocess.run([ROOT / "scripts" / "gpu_suite"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("gpu_suite: no GPU found: ")
    assert ended.stdout == ""


def test_parts_and_their_names() -> None:
    assert suite.parse([]).parts == suite.PARTS
    assert suite.parse(["--parts", "bench,ops"]).parts == ("bench", "ops")
    with pytest.raises(SystemExit) as ended:
        suite.parse(["--parts", "bench,speed"])
    assert ended.value.code == 2


def test_commands_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = suite.parse(["--only", "decode"])
    (bench,) = suite.commands("bench", arguments).values()
    assert bench[-3:] == ["bench", "--only", "decode"]
    monkeypatch.setattr(suite.shutil, "which", lambda _: "/opt/compute-sanitizer")
    checked = suite.commands("sanitizer", arguments)
    assert list(checked) == ["memcheck", "racecheck"]
    assert "--error-exitcode" in checked["memcheck"]
    monkeypatch.setattr(suite.shutil, "which", lambda _: None)
    assert suite.commands("sanitizer", arguments) == {}


def test_rows_of_what_a_command_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those measured before the time was over count, half a line does not."""
    row = {"name": "a", "us": 2.0}
    code = f"import time; print({json.dumps(row)!r}, flush=True); print('{{half', flush=True);"
    planned = {"": [sys.executable, "-c", f"{code} time.sleep(60)"]}
    monkeypatch.setattr(suite, "commands", lambda *_: planned)
    found = list(suite.run("bench", suite.parse([]), time.monotonic() + 2))
    assert found == [row, {"name": "the rest", "skipped": "the time was over"}]
    (late,) = suite.run("bench", suite.parse([]), time.monotonic() - 1)
    assert late["skipped"] == "the time was over"


def test_how_a_test_run_ends() -> None:
    assert list(suite.read("ops", "..\n5 passed\n", 0)) == [{"name": "ops", "passed": "5 passed"}]
    (row,) = suite.read("ops", "1 failed in 2s\n\n", 1)
    assert row["failed"] == "exit code 1: 1 failed in 2s"


def test_table() -> None:
    lines = table(
        [
            {"part": "bench", "name": "copy", "gb_s": 3000.4},
            {
                "part": "bench",
                "name": "x",
                "us": 12.34,
                "ceiling_share": 0.856,
                "other_over_ours": 1.5,
                "best_other": "flex",
                "not_run": {"sdpa cudnn": "no | kernel"},
            },
        ]
    ).splitlines()
    assert lines[2] == "| bench | copy |  | 3000 |  |  |  |  |  |"
    assert lines[3] == (
        "| bench | x | 12.3 |  |  |  | 86% | 1.50 |"
        " best of the others: flex; sdpa cudnn not run: no / kernel |"
    )


def test_bytes_and_operations() -> None:
    row = ops.attention("llama-3-8b", 2, 4095, 1)
    assert row.flops == 4 * 2 * 4096 * 32 * 128
    assert row.bytes == 2 * 4096 * 2 * 8 * 128 * 2 + 8 * 2 * 32 * 128
    prefill = ops.attention("olmo-2-7b", 1, 0, 1024)
    assert prefill.flops == 4 * (1024 * 1025 // 2) * 32 * 128
    row = ops.linear("o", 3, 16)
    assert row.flops == 2 * 3 * 4096 * 4096
    assert row.bytes == 2 * 4096 * 4096 + 4 * 3 * (4096 + 4096)


def test_shapes_of_packed_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    for bits in (4, 8):
        weight = random_weight(128, 256, Layout(bits, 128, torch.float16, False), generator)
        assert ops.packed_shape(128, 256, bits) == (weight.shape, weight.dtype)
    weight = pack_linear(torch.zeros(128, 256).bfloat16())
    assert ops.packed_shape(128, 256, 16) == (weight.shape, weight.dtype)
    row = ops.linear("down", 1, 4)
    shape, dtype = ops.packed_shape(4096, 14336, 4)
    assert row.bytes == math.prod(shape) * dtype.itemsize + 4 * (4096 + 14336)


def test_what_matters_most_comes_first() -> None:
    names = [row.name for row in ops.rows()]
    assert len(set(names)) == len(names)
    assert names[0] == "paged_attention llama-3-8b decode 1 at 2048"
    assert [row.name for row in ops.rows("w4 qkv 1x")] == ["linear_w4 qkv 1x6144x4096"]


def test_weights_are_made_up_where_a_package_runs(tmp_path: Path) -> None:
    """Each in its place: ones, normal numbers, codes behind small scales; tied ones once."""
    weight = random_weight(
        64, 64, Layout(4, 32, torch.float16, False), torch.Generator().manual_seed(0)
    )
    codes = {"offset": 256, "nbytes": weight.nbytes, "dtype": "uint8", "shape": [*weight.shape]}
    plain = {"offset": 64, "nbytes": 160, "dtype": "bfloat16", "shape": [8, 10]}
    norm = {"offset": 0, "nbytes": 40, "dtype": "float32", "shape": [10]}
    constants = {"head": plain, "embed": plain, "down": codes, "a.norm": norm}
    light, whole = tmp_path / "light.pt2", tmp_path / "whole.pt2"
    with ArchiveWriter(light) as writer:
        writer.add("ingot/weights.bin", b"")
        writer.add("ingot/report.json", b"{}")
        manifest = {"constants": constants, "entries": writer.entries}
        writer.add_last("ingot/manifest.json", json.dumps(manifest).encode())
    assert carried.filled(light, whole) == whole
    with zipfile.ZipFile(whole) as archive:
        data = archive.read("model/ingot/weights.bin")
        manifest = json.loads(archive.read("model/ingot/manifest.json"))
    assert manifest["constants"] == constants
    assert set(manifest["entries"]) == {"ingot/weights.bin", "ingot/report.json"}
    assert len(data) == manifest["entries"]["ingot/weights.bin"]["bytes"] == 256 + weight.nbytes
    assert np.array_equal(np.frombuffer(data[:40], np.float32), np.ones(10))
    values = torch.frombuffer(bytearray(data[64:224]), dtype=torch.bfloat16).float()
    assert 0.01 < values.std() < 0.04
    blocks = np.frombuffer(data[256:], np.uint8).reshape(-1, weight.shape[-1])
    assert (blocks[:, :128].copy().view(np.float16) == np.float16(0.002)).all()
    assert len(np.unique(blocks[:, 128:])) == 256


def test_the_plain_llama_remembers() -> None:
    """A step after another sees what the first wrote, and nothing behind its place."""
    torch.manual_seed(0)
    model = static_llama.build(SMALL, 16, "cpu")
    one, two = torch.tensor([3]), torch.tensor([5])
    with torch.no_grad():
        model(one, torch.tensor([0]))
        after = model(two, torch.tensor([1]))
        model(one, torch.tensor([2]))
        assert torch.equal(model(two, torch.tensor([1])), after)
        model(two, torch.tensor([0]))
        assert not torch.equal(model(two, torch.tensor([1])), after)
    assert after.shape == (1, 50)

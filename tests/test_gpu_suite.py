"""scripts/gpu_suite where there is no GPU: its table, what it counts, how its parts end."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gpu import carried, ops, packages, static_llama, suite
from gpu.table import table

from ingot.custom_ops.declare import OPS
from ingot.custom_ops.linear import pack_linear
from ingot.custom_ops.quantised_layout import LARGEST_MULTIPLIER, Layout
from ingot.custom_ops.quantised_linear import random_weight
from ingot.export.archive import ArchiveWriter

from .custom_ops.test_cases import CALLS

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


def test_commands_of_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = suite.parse(["--only", "decode"])
    (bench,) = suite.commands("bench", arguments)
    assert bench.words[-3:] == ["bench", "--only", "decode"]
    monkeypatch.setattr(carried, "ROOT", tmp_path)
    assert suite.commands("packages", arguments).startswith("none is carried here")
    carried.path_of("checked", "int4").parent.mkdir(parents=True)
    for device in ("cuda", "cpu"):
        carried.path_of("checked", "int4", device).touch()
    (compared,) = suite.commands("packages", arguments)
    assert compared.words[-1] == "int4"
    by_recipe = suite.commands("model", arguments)
    assert [command.name for command in by_recipe] == ["bf16", "int4", "compiled"]
    monkeypatch.setattr(suite.shutil, "which", lambda *_, **__: "/opt/compute-sanitizer")
    checked = suite.commands("sanitizer", arguments)
    assert [command.name for command in checked[:2]] == ["memcheck", "racecheck"]
    assert checked[2].words[-3:] == compared.words[-3:]
    assert "--error-exitcode" in checked[0].words
    monkeypatch.setattr(suite.shutil, "which", lambda *_, **__: None)
    assert suite.commands("sanitizer", arguments) == "compute-sanitizer is not installed"
    monkeypatch.setattr(suite, "find_spec", lambda _: None)
    assert suite.commands("ops", arguments) == "pytest is not installed"


def test_every_benchmark_is_in_one_command() -> None:
    texts = [command.words[-1] for command in suite.commands("bench", suite.parse([]))]
    found = [row.name for text in texts for row in ops.rows(text)]
    assert sorted(found) == sorted(row.name for row in ops.rows())


def test_every_case_is_in_one_command() -> None:
    """Where there is no GPU the cases are skipped when they are looked for, so their names tell."""
    names = [f"test_agrees_with_float64[{parameter.id}]" for parameter in CALLS]
    names += [f"test_opcheck[{name}]" for name in OPS]
    for name in names:
        chosen = 0
        for command in suite.commands("ops", suite.parse([])):
            one, two = re.findall(r"\[[\w-]+\]?", command.words[-1])
            chosen += one in name or two in name
        assert chosen == 1, name


def ended(
    code: str, log: Path, *, seconds: float = 20, is_test: bool = False, **environment: str
) -> list[suite.Row]:
    """The rows of a command that runs `code`, and of how it ended."""
    rows: list[suite.Row] = []
    command = suite.Command("a", [sys.executable, "-c", code], is_test, environment)
    return [*suite.run_command(command, seconds, log, rows.append), *rows]


def test_rows_count_before_the_time_is_over(tmp_path: Path) -> None:
    """Half a line does not, and a child of the command's that holds its output ends with it."""
    row, log = {"name": "a", "us": 2.0}, tmp_path / "log"
    code = f"""if True:
        import subprocess, time
        print({json.dumps(row)!r}, flush=True)
        print("{{half", flush=True, end="")
        print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
        time.sleep(60)
    """
    begun = time.monotonic()
    assert ended(code, log, seconds=1) == [
        {"name": "a: the rest", "skipped": "the time was over"},
        row,
    ]
    assert time.monotonic() - begun < 20
    assert json.dumps(row) in log.read_text()


def test_how_commands_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (row,) = ended("print('5 passed')", log, is_test=True)
    assert row == {"name": "a", "passed": "5 passed"}
    (row,) = ended("print('1 failed in 2s'); print(); exit(1)", log, is_test=True)
    assert row == {"name": "a", "failed": "exit code 1: 1 failed in 2s"}
    (row,) = ended("raise RuntimeError('no such device')", log)
    assert row == {"name": "a: the rest", "failed": "exit code 1: RuntimeError: no such device"}
    assert ended("import os; print(os.environ['SET'])", log, SET='{"name": 1') == []
    assert "Traceback" in log.read_text()


def test_one_that_hangs_leaves_the_others_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = suite.Command("hangs", [sys.executable, "-c", "import time; time.sleep(60)"])
    prints = suite.Command("prints", [sys.executable, "-c", "print('fine')"], is_test=True)
    monkeypatch.setattr(suite, "commands", lambda *_: [hangs, prints, prints])
    rows: list[suite.Row] = []
    suite.run("ops", suite.parse([]), tmp_path / "log", 3, rows.append)
    assert [next(iter(row.keys() - {"name"})) for row in rows] == ["skipped", "passed", "passed"]
    suite.run("ops", suite.parse([]), tmp_path / "log", -1, rows.append)
    assert rows[-1] == {"name": "prints", "skipped": "the time was over"}


def test_the_record_is_there_with_each_row(tmp_path: Path) -> None:
    record = suite.Record(tmp_path / "out" / "suite.json")
    for count in (1, 2):
        record.add("bench", {"name": f"row {count}"})
        found = json.loads(record.path.read_text())
        assert [row["name"] for row in found["rows"]] == [f"row {n + 1}" for n in range(count)]
        assert found["torch"] == torch.__version__
        assert found["commit"]


def test_what_cannot_be_built_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGOT_NATIVE_DIR", str(tmp_path))
    monkeypatch.setattr(suite, "ROOT", tmp_path)  # where there is no scripts/build
    sentence = suite.missing(("ops",))
    assert sentence.startswith("libingot_ops.so.1 is not in ")
    assert sentence.endswith("bring build/native along")


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
        layout = Layout(bits, 128, torch.float16, False, multipliers=bits == 4)
        weight = random_weight(128, 256, layout, generator)
        assert ops.packed_shape(128, 256, bits) == (weight.shape, weight.dtype)
    weight = pack_linear(torch.zeros(128, 256).bfloat16())
    assert ops.packed_shape(128, 256, 16) == (weight.shape, weight.dtype)
    row = ops.linear("down", 1, 4)
    shape, dtype = ops.packed_shape(4096, 14336, 4)
    assert row.bytes == math.prod(shape) * dtype.itemsize + 4 * (4096 + 14336)


def test_made_up_weights_know_blocks_with_multipliers() -> None:
    """By numbers of their own: where they are made up there is no torch."""
    layout = Layout(4, 128, torch.float16, False, multipliers=True)
    known = (carried._MULTIPLIED, carried._SCALES + carried._MULTIPLIERS, carried._LARGEST)
    assert known == (layout.block_bytes, layout.codes_offset, LARGEST_MULTIPLIER)


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


def test_made_up_multipliers_are_those_that_kernels_take() -> None:
    """Larger ones make codes of more than 8 bits, of which kernels may make different things."""
    layout = Layout(4, 128, torch.float16, zero_points=False, multipliers=True)
    blocks = np.frombuffer(carried._values("uint8", layout.block_bytes, False), np.uint8)
    multipliers = blocks.reshape(-1, layout.block_bytes)[:, 128 : layout.codes_offset]
    assert (multipliers.min(), multipliers.max()) == (1, LARGEST_MULTIPLIER)
    assert layout.codes_offset == 128 + 256


def test_logits_that_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.random.default_rng(0).standard_normal((20, 300), np.float32)
    rounded = (expected.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert packages.compare(rounded, expected).startswith("0.00")
    for wrong in (np.float32(np.nan), -expected[7]):
        one = rounded.copy()
        one[7] = wrong
        with pytest.raises(packages.Wrong, match="the first is token 7$"):
            packages.compare(one, expected)


def test_a_check_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "Package", lambda path: path)
    monkeypatch.setattr(carried, "whole", lambda *_: None)

    def fails() -> str:
        raise packages.Wrong("other logits")

    monkeypatch.setattr(packages, "checks", lambda _: {"one": fails, "two": lambda: "fine"})
    _, one, two = packages.rows("bf16", "tiny")
    assert one == {"name": "tiny bf16 one", "failed": "Wrong: other logits"}
    assert two == {"name": "tiny bf16 two", "passed": "fine"}


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

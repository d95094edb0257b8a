"""The commands as a user calls them: results on stdout, one sentence and code 2 for mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ingot import native
from ingot.runtime import doctor_command

from .custom_ops.conftest import LEVELS


def ingot(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingot", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def ingot_run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(native.find("ingot-run")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


RUN_FIELDS = {
    "text",
    "tokens",
    "prompt_tokens",
    "prefill_tok_s",
    "decode_tok_s",
    "variant",
    "load_ms",
    "first_token_ms",
    "peak_rss_mb",
}


def test_python_and_cpp_say_the_same(demo_package: Path, tmp_path: Path) -> None:
    options = ("--tokens", "0,100,7,42", "--max-new-tokens", 24, "--ignore-eos", "--json")
    python = json.loads(ingot("run", demo_package, *options).stdout)
    cpp = json.loads(ingot_run(demo_package, *options).stdout)
    assert set(python) == set(cpp) == RUN_FIELDS
    assert python["tokens"] == cpp["tokens"]
    assert len(python["tokens"]) == 24
    assert python["text"] == cpp["text"]
    file = tmp_path / "tokens.txt"
    file.write_text("0, 100\n7 42")
    copied = (
        ingot_run(demo_package, *options, "--copy-weights"),
        ingot("run", demo_package, *options, "--copy-weights"),
    )
    assert [json.loads(run.stdout)["tokens"] for run in copied] == [cpp["tokens"]] * 2
    from_file = ingot_run(demo_package, "--tokens-file", file, *options[2:])
    assert json.loads(from_file.stdout)["tokens"] == cpp["tokens"]


def test_run_streams_text(demo_package: Path) -> None:
    arguments = ("--prompt", "def f(", "--max-new-tokens", 12, "--ignore-eos")
    result = ingot("run", demo_package, *arguments)
    as_json = json.loads(ingot("run", demo_package, *arguments, "--json").stdout)
    assert result.stdout == as_json["text"] + "\n"
    assert result.stderr == ""


@pytest.mark.parametrize("program", [ingot_run, lambda *a: ingot("run", *a)], ids=["cpp", "python"])
def test_trace_has_every_kernel_of_every_step(program, demo_package: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    program(
        demo_package, "--tokens", "1,2,3", "--max-new-tokens", 4, "--ignore-eos", "--trace", trace
    )
    events = json.loads(trace.read_text())["traceEvents"]
    steps = [e for e in events if e["name"] == "step"]
    assert [s["args"]["tokens"] for s in steps] == [3, 1, 1, 1]
    for step in steps:
        end = step["ts"] + step["dur"]
        calls = [e for e in events if e.get("cat") in ("kernel", "op")]
        kernels = [e for e in calls if step["ts"] <= e["ts"] <= end]
        attention = [e for e in kernels if e["name"].endswith("_cpu_paged_attention")]
        assert len(attention) == 6  # one a layer
        assert sum(k["dur"] for k in kernels) <= step["dur"]


def test_bench_reports_share_of_bandwidth(demo_package: Path) -> None:
    options = ("--prompt-tokens", 16, "--new-tokens", 8, "--repeats", 2, "--json")
    found = json.loads(ingot("bench", demo_package, *options).stdout)
    share = found["bytes_per_token"] * found["decode_tok_s"] / (found["read_gb_s"] * 1e9)
    assert found["bandwidth_share"] == pytest.approx(share)
    assert found["bytes_per_token"] > 5_770_000 * 4  # every float32 weight of the model is read


def test_inspect_shows_manifest_and_record(demo_package: Path) -> None:
    found = json.loads(ingot("inspect", demo_package, "--json").stdout)
    assert found["manifest"]["model"]["architecture"] == "LlamaForCausalLM"
    assert [e["name"] for e in found["report"]["events"]][:2] == ["import torch", "load checkpoint"]
    assert "LlamaForCausalLM" in ingot("inspect", demo_package).stdout


def test_doctor() -> None:
    found = json.loads(ingot("doctor", "--json").stdout)
    assert found["cpu_level"] in LEVELS
    assert all(found["libraries"].values())
    assert set(found["missing"]) == {"export", "vision", "report", "sign", "onnx"}
    assert not any(found["missing"].values())


def test_doctor_says_what_is_missing_for_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    doctor_command.run(as_json=False, torch_refused=None)
    shown = capsys.readouterr().out
    assert "report       no plotly: pip install 'ingot[report]'  (charts in pages" in shown
    assert "sign         installed" in shown


def damaged(package: Path, folder: Path, cut: int) -> Path:
    path = folder / "cut.pt2"
    path.write_bytes(package.read_bytes()[:-cut])
    return path


def flipped(package: Path, folder: Path) -> Path:
    """One bit of the generated code turned over."""
    path = folder / "flipped.pt2"
    data = bytearray(package.read_bytes())
    with zipfile.ZipFile(package) as archive:
        (info,) = (i for i in archive.infolist() if i.filename.endswith("model.so"))
    data[info.header_offset + 5000] ^= 1
    path.write_bytes(data)
    return path


def test_mistakes_are_one_sentence_and_code_2(demo_package: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.pt2"
    text.write_text("not a package at all, but long enough to be one")
    tokens = ("--tokens", "1,2")
    cases = {
        "cannot open": (tmp_path / "none.pt2", *tokens),
        "is not a file": (tmp_path, *tokens),
        "is not an Ingot package": (text, *tokens),
        "is damaged or cut short": (damaged(demo_package, tmp_path, 100), *tokens),
        "does not have the hash": (flipped(demo_package, tmp_path), *tokens),
        "token id 4096 is out of range": (demo_package, "--tokens", "1,4096"),
        "the prompt is too long": (demo_package, "--tokens", ",".join(["1"] * 1100)),
    }
    for sentence, arguments in cases.items():
        for result in (ingot("run", *arguments), ingot_run(*arguments)):
            assert result.returncode == 2, result
            assert sentence in result.stderr
            assert result.stderr.startswith("ingot: ")
            assert result.stderr.count("\n") == 1
            assert result.stdout == ""


def test_a_package_for_a_higher_level_is_refused(demo_package: Path) -> None:
    import os

    level = json.loads(ingot("doctor", "--json").stdout)["cpu_level"][: len("x86-64-vN")]
    if level == "x86-64-v2":
        pytest.skip("this CPU has no lower level to force")
    command = [str(native.find("ingot-run")), str(demo_package), "--tokens", "1"]
    environment = {**os.environ, "INGOT_ISA": "x86-64-v2"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 2
    assert f"has code for {level}, INGOT_ISA allows x86-64-v2 at most" in result.stderr


def test_export_mistakes(tmp_path: Path, demo_checkpoint: Path) -> None:
    output = tmp_path / "out.pt2"
    cases = {
        "no checkpoint folder": (tmp_path / "none", "-o", output),
        "unknown ISA level": (demo_checkpoint, "-o", output, "--isa", "avx9"),
        "no folder": (demo_checkpoint, "-o", tmp_path / "missing" / "out.pt2"),
    }
    for sentence, arguments in cases.items():
        result = ingot("export", *arguments)
        assert result.returncode == 2, result
        assert sentence in result.stderr
    assert not list(tmp_path.iterdir())


def test_inspect_a_path_with_markup(demo_package: Path, tmp_path: Path) -> None:
    path = tmp_path / "[red]model[" / "blue].pt2"
    path.parent.mkdir()
    path.symlink_to(demo_package)
    found = ingot("inspect", path)
    assert found.returncode == 0, found.stderr
    assert "LlamaForCausalLM" in found.stdout

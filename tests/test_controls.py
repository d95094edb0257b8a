"""Controls at the border of generated code, by flag and by environment; `ingot replay`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ingot
from ingot import native
from ingot.runtime import controls

ROOT = Path(__file__).parents[1]
PROMPT = ("--tokens", "1,2,3", "--ignore-eos")


def run_ingot(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingot", *map(str, arguments)]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture(scope="module")
def captured(demo_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ninth call of paged_attention, in the second step: it reads what the first wrote."""
    path = tmp_path_factory.mktemp("capture") / "call.npz"
    controls.turn_on(f"capture-to={path}")
    with (
        ingot.load(demo_package, threads=1).session() as session,
        controls.on(["capture=paged_attention@9"]),
    ):
        list(session.generate([1, 2, 3], max_new_tokens=3, ignore_eos=True))
    return path


def leaks(package: Path, generations: int, report: Path) -> str:
    controls.turn_on(f"leak-check={report}")
    opened = ingot.load(package, threads=1)
    for i in range(generations):
        with opened.session() as session:
            list(session.generate([i % 4096, 7], max_new_tokens=4, ignore_eos=True))
    del session, opened
    controls.report()
    return report.read_text()


def test_no_handle_leaks(demo_package: Path, tmp_path: Path) -> None:
    text = leaks(demo_package, 20, tmp_path / "leaks.txt")
    made, freed = map(int, re.findall(r"(\d+) handles made, (\d+) freed, 0 not freed", text)[0])
    assert made == freed > 20 * 4 * 50


@pytest.mark.full
def test_no_handle_leaks_in_a_thousand_generations(demo_package: Path, tmp_path: Path) -> None:
    assert ", 0 not freed" in leaks(demo_package, 1000, tmp_path / "leaks.txt")


def test_flags_and_variables_do_the_same(demo_package: Path, tmp_path: Path) -> None:
    by_flag, by_variable, by_cpp = (tmp_path / name for name in ("flag", "variable", "cpp"))
    options = (*PROMPT, "--max-new-tokens", 3, "--json")
    flagged = run_ingot("run", demo_package, *options, "--control", f"call-log={by_flag}")
    run_ingot("run", demo_package, *options, INGOT_CALL_LOG=str(by_variable))
    cpp = [native.find("ingot-run"), demo_package, *options, "--control", f"call-log={by_cpp}"]
    subprocess.run(list(map(str, cpp)), check=True, capture_output=True)
    plain = run_ingot("run", demo_package, *options)
    assert json.loads(flagged.stdout)["tokens"] == json.loads(plain.stdout)["tokens"]
    ops = [re.findall(r"^  (\w+@\d+\(.*), ", path.read_text(), re.M) for path in tmp_path.iterdir()]
    assert len(ops[0]) == 3 * (6 * 5 + 2)  # steps of 6 layers, the embedding and the head
    assert ops[0] == ops[1] == ops[2]
    assert plain.stderr == flagged.stderr == ""


def test_bench_reports_the_hosts_overhead(demo_package: Path, tmp_path: Path) -> None:
    report = tmp_path / "null.txt"
    options = ("--prompt-tokens", 4, "--new-tokens", 9, "--repeats", 1)
    result = run_ingot("bench", demo_package, *options, "--control", f"null-kernels={report}")
    assert result.returncode == 0, result.stderr
    prefill, decode = sorted(report.read_text().splitlines()[1:], key=lambda line: line[-3:])[::-1]
    assert prefill.endswith("[4]")
    assert decode.endswith("[1]")
    runs, overhead, *_ = map(float, decode.removeprefix("null-kernels, ms:").split()[:-1])
    assert runs == 2 * 8
    assert overhead > 0


def test_a_dump_is_what_numpy_reads(demo_package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    result = run_ingot(
        "run", demo_package, *PROMPT, "--max-new-tokens", 1, "--control", "dump=embedding",
        "--control", f"dump-to={folder}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "embedding-1.after.npz",
        "embedding-1.before.npz",
    ]
    before, after = (np.load(folder / f"embedding-1.{part}.npz") for part in ("before", "after"))
    assert before["tokens"].tolist() == [1, 2, 3]
    rows = before["weight"].transpose(0, 2, 1).reshape(-1, 256)  # panels of 64 rows, K-major
    np.testing.assert_array_equal(after["out0"], rows[[1, 2, 3]])
    assert json.loads(bytes(after["call.json"]))["part"] == "after"


def test_stats_name_where_a_nan_comes_from(demo_package: Path, tmp_path: Path) -> None:
    report = tmp_path / "stats.txt"
    options = (*PROMPT, "--max-new-tokens", 1, "--control", f"stats={report}")
    assert run_ingot("run", demo_package, *options).returncode == 0
    *lines, last = report.read_text().splitlines()
    assert last == "stats: no NaN in any op's inputs or outputs"
    assert any("embedding@1 input tokens int64 [3]: 1 to 3, 0 NaN, 0 infinite" in x for x in lines)


def test_replay_is_bit_for_bit(captured: Path) -> None:
    result = run_ingot("replay", captured, "--repeats", 5, "--threads", 1, "--json")
    found = json.loads(result.stdout)
    assert found["op"] == "paged_attention"
    assert found["call"] == 9
    assert {o["name"]: o["bitwise"] for o in found["outputs"]} == {
        "kv_cache.after": True,
        "out0": True,
    }
    assert all(o["max_error"] == 0 for o in found["outputs"])
    assert 0 < found["min_ms"] <= found["median_ms"] <= found["p90_ms"]
    assert "bit for bit as captured" in run_ingot("replay", captured).stdout


def rewritten(captured: Path, path: Path, **changes: object) -> Path:
    """The capture with other arrays, or other fields of call.json."""
    entries = dict(np.load(captured))
    call = json.loads(bytes(entries.pop("call.json")))
    for name, value in changes.items():
        if name in entries:
            entries[name] = value
        else:
            call[name] = value
    np.savez(path, **entries)
    import zipfile

    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("call.json", json.dumps(call))
    return path


def test_replay_says_how_far_an_output_is_off(captured: Path, tmp_path: Path) -> None:
    out = np.load(captured)["out0"]
    path = rewritten(captured, tmp_path / "off.npz", out0=out + np.float32(0.5))
    found = json.loads(run_ingot("replay", path, "--repeats", 1, "--json").stdout)
    (output,) = (o for o in found["outputs"] if o["name"] == "out0")
    assert not output["bitwise"]
    assert output["max_error"] == pytest.approx(0.5, rel=1e-5)


def test_replay_refuses(captured: Path, tmp_path: Path) -> None:
    cut, text = tmp_path / "cut.npz", tmp_path / "text.npz"
    cut.write_bytes(captured.read_bytes()[:-1000])
    text.write_text("not a capture")
    np.savez(tmp_path / "plain.npz", x=np.zeros(3))
    cases = {
        "none.npz cannot be read (No such file or directory);": tmp_path / "none.npz",
        "is not a captured call": text,
        "is damaged": cut,
        "has no call.json": tmp_path / "plain.npz",
        "which this Ingot has not": rewritten(captured, tmp_path / "a.npz", schema="other"),
        "not all of it": rewritten(captured, tmp_path / "b.npz", part="before"),
        "another format": rewritten(captured, tmp_path / "c.npz", format_version=9),
        "an argument is malformed": rewritten(captured, tmp_path / "d.npz", arguments=[{}]),
        "paged_attention: ": rewritten(captured, tmp_path / "e.npz", q=np.zeros((1, 4, 64), "f8")),
    }
    for sentence, path in cases.items():
        result = run_ingot("replay", path)
        assert result.returncode == 2, (sentence, result)
        assert result.stderr.count("\n") == 1, result.stderr
        if sentence != "paged_attention: ":
            assert sentence in result.stderr


def test_mistakes_are_one_sentence_and_code_2(demo_package: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    cases = {
        "there is no control 'leaks'": "leaks",
        "dump=embeding names no calls": "dump=embeding",
        "capture=linear@0 names no calls": "capture=linear@0",
        f"cannot write {missing}/log": f"call-log={missing}/log",
        "there was no call linear@9000; the op was called 19 times": "capture=linear@9000",
    }
    for sentence, setting in cases.items():
        result = run_ingot(
            "run", demo_package, *PROMPT, "--max-new-tokens", 1, "--control", setting,
            INGOT_CAPTURE_TO=str(tmp_path / "call.npz"),
        )  # fmt: skip
        assert result.returncode == 2, result
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
    result = run_ingot("run", demo_package, *PROMPT, INGOT_DUMP="linear@2-1")
    assert result.returncode == 2
    assert "dump=linear@2-1 names no calls" in result.stderr
    assert not list(tmp_path.iterdir())


def test_doctor_and_the_page_list_the_table() -> None:
    listed = json.loads(run_ingot("doctor", "--controls", "--json").stdout)["controls"]
    assert [control["name"] for control in listed] == [c.name for c in controls.table()]
    page = (ROOT / "docs" / "controls.md").read_text()
    for c in controls.table():
        assert f"| `{c.name}` | `{c.variable}` | {c.value} | {c.meaning} |" in page
    assert page.count("\n| `") == len(listed)

"""scripts/bench_peers.py, without any other engine: answers, skipping, failing, the table."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import bench_peers
import pytest
from click.testing import CliRunner
from peers import engines, measure, report
from peers.measure import WorkerFailed

# A worker that keeps to the protocol and makes token 7, or fails if its model's file is empty.
WORKER = """
import json, pathlib, sys
model, threads, *asked = sys.argv[1:]
if not pathlib.Path(model).read_text():
    sys.exit("the model is empty")
runs = []
for request in asked:
    count, _, prompt = request.partition(":")
    assert len(prompt.split(",")) in (32, 512)
    runs.append({"tokens": [7] * int(count), "first_s": 0.5, "last_s": 2.5})
print(json.dumps({"runs": runs} if asked else {"version": "1.2", "head": "int8"}))
"""


def row(engine: str, precision: str, **samples: list[float]) -> report.Row:
    """A row whose fields take these values round after round; the others are 1."""
    rounds = len(next(iter(samples.values())))
    fields = {c[0]: [1.0] * rounds for c in report.COLUMNS} | {"other_cpu": [0.5] * rounds}
    values = {**fields, **samples}
    return {
        "engine": engine,
        "precision": precision,
        "kind": "int8",
        "head": "int8",
        "version": "3.1",
        "file_mb": 200.0 if engine == "ingot" else 100.0,
        "status": "ok",
        "samples": [
            {"round": i + 1, **{name: v[i] for name, v in values.items()}} for i in range(rounds)
        ],
    }


def record(*rows: report.Row) -> report.Record:
    return {
        "machine": {"cpu": "A CPU", "cores": 4, "memory_gb": 16.0, "system": "Linux 6"},
        "run": {
            "model": "a model",
            "command": "bench",
            "date": "2026-01-02",
            "commit": "abc",
            "dirty": False,
            "threads": 4,
            "new_tokens": 64,
            "rounds": 3,
        },
        "rows": list(rows),
    }


def test_table_has_medians_and_spread_and_says_what_did_not_run() -> None:
    skipped: dict[str, Any] = {**row("ort", "int8", cold_ms=[]), "status": "skipped: no model"}
    lines = report.table(
        record(row("llamacpp", "Q8_0", decode_long_tok_s=[30.0, 10.0, 20.0]), skipped)
    ).splitlines()
    assert "| 20.0 (10.0-30.0) |" in lines[2]
    assert lines[2].startswith("| llama.cpp | Q8_0 | int8 |")
    assert "skipped: no model" in lines[3]
    assert len({line.count("|") for line in lines}) == 1


def test_ratios_pair_the_rounds_and_name_the_best_other_engine() -> None:
    ours = row("ingot", "int8", decode_long_tok_s=[20.0, 10.0, 40.0], cold_ms=[50.0, 50.0, 50.0])
    best = row("llamacpp", "Q8_0", decode_long_tok_s=[10.0, 10.0, 10.0], cold_ms=[100.0] * 3)
    slow = row("ort", "int8", decode_long_tok_s=[5.0, 5.0, 5.0], cold_ms=[200.0] * 3)
    (line,) = report.ratios(record(ours, best, slow)).splitlines()[4:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2] == "2.00 (llama.cpp Q8_0)"  # decode: more is better
    assert cells[4] == "2.00 (llama.cpp Q8_0)"  # cold: less is better
    assert cells[-1].startswith("0.50 ")  # the file is twice theirs
    assert report.ratios(record(ours)) == ""


def test_notes_tell_of_other_load_and_versions() -> None:
    text = report.notes(record(row("llamacpp", "Q8_0", cold_ms=[1.0, 2.0])))
    assert "took 50% of the CPU" in text
    assert "llama.cpp 3.1" in text


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"runs": []}, "not 1 runs"),
        ({"runs": [{"tokens": [1, 2]}]}, "not tokens, first_s and last_s"),
        ({"runs": [{"tokens": [1], "first_s": 1, "last_s": 2}]}, "1 tokens where 2"),
        ({"runs": [{"tokens": [1, "2"], "first_s": 1, "last_s": 2}]}, "tokens are"),
        ({"runs": [{"tokens": [1, 2], "first_s": 2, "last_s": 1}]}, "cannot be"),
        ({"tokens": [1, 2]}, "not 1 runs"),
    ],
)
def test_answers_are_read_strictly(answer: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkerFailed, match=said):
        measure.parse_runs(answer, [2])


def test_a_worker_prints_one_line_of_json() -> None:
    assert measure.parse_line('{"a": 1}\n', "") == {"a": 1}
    for first, rest in (("", ""), ("[1]\n", ""), ("hello\n", ""), ('{"a": 1}\n', "bye\n")):
        with pytest.raises(WorkerFailed, match="other than one JSON object"):
            measure.parse_line(first, rest)


def test_a_cold_start_is_answered_by_a_worker_or_by_ingot_run() -> None:
    assert measure.parse_cold({"runs": [{"tokens": [5], "first_s": 1, "last_s": 1}]}) == 5
    assert measure.parse_cold({"tokens": [5], "text": ""}) == 5
    with pytest.raises(WorkerFailed, match="2 tokens where 1"):
        measure.parse_cold({"tokens": [5, 6]})


def test_prompts_differ_from_round_to_round_and_not_between_engines() -> None:
    assert measure.prompt("long 1", 512) == measure.prompt("long 1", 512)
    assert measure.prompt("long 1", 512)[0] != measure.prompt("long 2", 512)[0]
    assert len(measure.prompt("cold 1", 32)) == 32


def test_a_late_worker_and_a_failing_one_say_so() -> None:
    with pytest.raises(WorkerFailed, match=r"no answer within 0 s"):
        measure.run([sys.executable, "-c", "import time; time.sleep(60)"], 1, 0.2)
    with pytest.raises(WorkerFailed, match="no such thing"):
        measure.run([sys.executable, "-c", "raise SystemExit('no such thing')"], 1, 60)


def test_every_setting_is_made_by_the_setup_script() -> None:
    script = (Path(measure.__file__).parent / "setup").read_text()
    assert len({(s.engine, s.precision) for s in engines.SETTINGS}) == len(engines.SETTINGS)
    for setting in engines.SETTINGS:
        assert setting.kind in engines.CLASSES
        assert setting.engine + ")" in script
        assert setting.file.split("/")[0] in script


def test_a_whole_run_skips_what_is_missing_and_goes_on_past_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worker.py").write_text(f"#!{sys.executable}\n{WORKER}")
    os.chmod(tmp_path / "worker.py", 0o755)
    (tmp_path / "good").write_text("weights")
    (tmp_path / "empty").write_text("")
    settings = (
        engines.Setting("llamacpp", "good", "int8", "good"),
        engines.Setting("llamacpp", "empty", "int8", "empty"),
        engines.Setting("llamacpp", "absent", "int8", "absent"),
    )
    worker = engines.Engine("Worker", lambda work: [str(work / "worker.py")], native=True)
    monkeypatch.setitem(engines.ENGINES, "llamacpp", worker)
    monkeypatch.setattr(bench_peers, "SETTINGS", settings)
    arguments = ["--work-dir", str(tmp_path), "--rounds", "2", "--new-tokens", "5"]
    result = CliRunner().invoke(bench_peers.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    found = json.loads((tmp_path / "table.json").read_text())
    good, empty, absent = found["rows"]
    assert [s["round"] for s in good["samples"]] == [1, 2]
    assert good["samples"][0]["prefill_tok_s"] == pytest.approx(1024)
    assert good["samples"][0]["decode_long_tok_s"] == pytest.approx(2)
    assert good["samples"][0]["cold_ms"] > 0
    assert (good["version"], good["head"]) == ("1.2", "int8")
    assert empty["status"] == "failed: the model is empty"
    assert absent["status"] == "skipped: no absent"
    assert found["run"]["rounds"] == 2
    assert str(tmp_path) not in found["run"]["command"]
    assert "--rounds 2" in found["run"]["command"]
    rendered = CliRunner().invoke(bench_peers.main, ["--render", str(tmp_path / "table.json")])
    assert rendered.stdout == (tmp_path / "table.md").read_text()

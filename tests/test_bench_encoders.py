"""scripts/bench_encoders.py, without any other engine: answers, turns, skipping, the table."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import bench_encoders
import numpy as np
import pytest
from click.testing import CliRunner
from peers.encoders import measure, protocol, report, settings
from peers.engines import Engine
from peers.measure import WorkerFailed

# A worker that keeps to the protocol; its model's file holds its output's cosine.
WORKER = """
import json, pathlib, sys
model, precision, threads, seconds, *examples = sys.argv[1:]
assert (precision, threads, seconds) == ("int8", "2", "0.25")
cosine = float(pathlib.Path(model).read_text())
runs = [{"ms": [9.0, 2.0, 3.0], "cosine": cosine} for _ in examples]
print(json.dumps({"version": "1.2", "runs": runs}))
"""
FIRST, SECOND = (f"batch_{batch}_ms" for batch in settings.BATCHES)


def row(engine: str, kind: str, first: dict[int, float], second: float = 80.0) -> report.Row:
    """A row of one network; first: the smallest batch's time by the round."""
    return {
        "network": "vit",
        "engine": engine,
        "precision": kind,
        "kind": kind,
        "status": "ok",
        "samples": [
            {
                "round": index,
                "version": "3.1",
                FIRST: ms,
                SECOND: second,
                "cosine": 1 - index / 1000,
                "other_cpu": 0.5,
            }
            for index, ms in first.items()
        ],
    }


def record(*rows: report.Row) -> report.Record:
    return {
        "machine": {"cpu": "A CPU", "cores": 4, "memory_gb": 16.0, "system": "Linux 6"},
        "run": {
            "command": "bench",
            "date": "2026-01-02",
            "commit": "abc",
            "dirty": False,
            "threads": 4,
            "seconds": 0.5,
            "rounds": 3,
        },
        "rows": list(rows),
    }


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_has_medians_the_least_cosine_and_says_what_did_not_run() -> None:
    skipped = {**row("ort", "int8", {}), "status": "skipped: no model"}
    failed = {**row("torch", "bf16", {1: 1.0}), "status": "failed: late"}
    ran = row("ingot", "fp32", {1: 30.0, 2: 10.0, 3: 20.0})
    lines = report.table([ran, skipped, failed]).splitlines()
    middle = "20.00 (10.00-30.00)"
    assert cells(lines[2]) == ["Ingot", "fp32", middle, "80.00 (80.00-80.00)", "0.997000"]
    assert cells(lines[3])[:3] == ["ONNX Runtime, fused", "int8", "skipped: no model"]
    assert cells(lines[4])[2] == "failed: late"
    assert len({line.count("|") for line in lines}) == 1


def test_ratios_are_within_a_class_and_pair_the_rounds_that_both_took_part_in() -> None:
    ours = row("ingot", "fp32", {1: 20.0, 2: 1.0, 3: 10.0})
    best = row("compile", "fp32", {1: 10.0, 3: 10.0}, second=40.0)
    others = [row("torch", "fp32", {1: 90.0}), row("torch", "bf16", {1: 0.1})]
    (line,) = report.ratios([ours, best, *others]).splitlines()[2:]
    assert cells(line) == [
        "fp32",
        "0.75 (torch.compile, frozen fp32)",  # of 0.5 and 1
        "0.50 (torch.compile, frozen fp32)",
    ]
    assert report.ratios([ours]) == ""
    assert report.ratios([ours, {**best, "status": "failed: late"}]) == ""


def test_page_has_a_part_for_each_network_that_was_asked_for() -> None:
    text = report.markdown(record(row("ingot", "fp32", {1: 1.0}), row("ort", "fp32", {1: 2.0})))
    assert "ViT-B/16" in text
    assert "MiniLM" not in text
    assert "took 50% of the CPU" in text
    assert "ONNX Runtime, fused 3.1" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runs": []}, "not a version and 1 runs"),
        ({"more": 1}, "not a version and 1 runs"),
        ({"runs": [{"ms": [1.0]}]}, "not ms and cosine"),
        ({"runs": [{"ms": [], "cosine": 1.0}]}, "cannot be"),
        ({"runs": [{"ms": [1.0, 0.0], "cosine": 1.0}]}, "cannot be"),
        ({"runs": [{"ms": [1.0], "cosine": 0.5}]}, "cosine 0.500"),
        ({"runs": [{"ms": [1.0], "cosine": float("nan")}]}, "cosine nan"),
    ],
)
def test_answers_are_read_strictly(change: dict[str, Any], said: str) -> None:
    right = {"version": "1.2", "runs": [{"ms": [1.0], "cosine": 0.99}]}
    assert measure.parse(right, 1) == ("1.2", right["runs"])
    with pytest.raises(WorkerFailed, match=said):
        measure.parse({**right, **change}, 1)


def test_a_run_is_timed_at_least_three_times_and_compared() -> None:
    outputs = iter([np.float32([[3, 4]]), *[np.float32([[0, 0]])] * 3])
    found = protocol.run(lambda: next(outputs), np.float32([[4, 3]]), seconds=0.0)
    assert len(found["ms"]) == 3
    assert found["cosine"] == pytest.approx(24 / 25)
    with pytest.raises(SystemExit, match="shape"):
        protocol.run(lambda: np.float32([3, 4]), np.float32([[4, 3]]), seconds=0.0)


def test_every_setting_is_made_by_the_setup_script() -> None:
    script = (Path(settings.__file__).parents[1] / "setup").read_text()
    assert len({setting.name for setting in settings.SETTINGS}) == len(settings.SETTINGS)
    batches = " ".join(map(str, settings.BATCHES))
    assert f'encoders/make_models.py" @ {batches} ;;' in script
    for setting in settings.SETTINGS:
        folder, name = setting.file.split("/")[1:3]
        assert f"encoders/{setting.engine}" in script
        assert f"encoders/{folder}" in script
        assert name in script.replace("$network", setting.network).replace(
            "$name", f"{setting.network}-{setting.precision}"
        )
        assert setting.kind in settings.CLASSES


def test_a_whole_run_goes_on_past_what_fails_and_keeps_to_the_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worker.py").write_text(f"#!{sys.executable}\n{WORKER}")
    os.chmod(tmp_path / "worker.py", 0o755)
    (tmp_path / "good").write_text("0.999")
    (tmp_path / "wrong").write_text("0.2")
    (tmp_path / "encoders/models").mkdir(parents=True)
    for batch in settings.BATCHES:
        (tmp_path / f"encoders/models/vit-{batch}.npz").write_bytes(b"")

    def of(file: str, network: str = "vit", every: int = 1) -> settings.EncoderSetting:
        return settings.EncoderSetting("ort", "int8", "int8", file, network, every=every)

    monkeypatch.setattr(
        bench_encoders,
        "SETTINGS",
        (of("good"), of("good", every=2), of("wrong"), of("absent"), of("good", network="minilm")),
    )
    worker = Engine("Worker", lambda work: [str(work / "worker.py")])
    monkeypatch.setitem(settings.ENGINES, "ort", worker)
    arguments = ["--work-dir", str(tmp_path), "--rounds", "3", "--threads", "2"]
    result = CliRunner().invoke(
        bench_encoders.main, [*arguments, "--seconds", "0.25"], catch_exceptions=False
    )
    assert result.exit_code == 0
    found = json.loads((tmp_path / "encoders.json").read_text())
    good, seldom, wrong, absent, no_example = found["rows"]
    assert [s["round"] for s in good["samples"]] == [1, 2, 3]
    assert good["samples"][0][FIRST] == good["samples"][0][SECOND] == 3.0
    assert [s["round"] for s in seldom["samples"]] == [1, 3]
    assert wrong["status"] == "failed: its output is not eager torch's: cosine 0.200"
    assert absent["status"] == "skipped: no absent"
    assert no_example["status"].startswith("skipped: no minilm-1.npz")
    assert found["run"]["rounds"] == 3
    assert str(tmp_path) not in found["run"]["command"]
    assert "scripts/bench_encoders.py --rounds 3" in found["run"]["command"]
    rendered = CliRunner().invoke(
        bench_encoders.main, ["--render", str(tmp_path / "encoders.json")]
    )
    assert rendered.stdout == (tmp_path / "encoders.md").read_text()

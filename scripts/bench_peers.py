"""Ingot beside llama.cpp, OpenVINO GenAI, ONNX Runtime GenAI and torch, on one model in one run.

    python scripts/bench_peers.py --setup            # once: engines, the model, its conversions
    python scripts/bench_peers.py --rounds 5 -o benchmarks/peers.md

A round goes through all settings in turn, each in fresh processes, so that what the machine does
meanwhile falls on all alike. The record (JSON, beside the table) is written after every round.
What is not set up is skipped; what fails is a row that says why. The settings are in
peers/engines.py, and how a worker answers is in peers/protocol.py.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from peers import measure, report
from peers.engines import CLASSES, ENGINES, SETTINGS, Setting

ROOT = Path(__file__).parents[1]
MODEL = "Llama at the shape of TinyLlama-1.1B, random weights"


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True
    ).stdout.strip()


def machine() -> dict[str, Any]:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": memory / 1e9,
        "system": f"Linux {platform.release()}",
    }


def command_line(**options: Any) -> str:
    """What repeats the measurement; where it keeps its files is left out."""
    words = ["python", "scripts/bench_peers.py"]
    for name, value in options.items():
        for one in value if isinstance(value, tuple) else (value,):
            words += [f"--{name.replace('_', '-')}", str(one)]
    return shlex.join(words)


def new_record(
    settings: list[Setting], threads: int, new_tokens: int, command: str
) -> report.Record:
    return {
        "machine": machine(),
        "run": {
            "model": MODEL,
            "command": command,
            "date": datetime.date.today().isoformat(),
            "commit": git("rev-parse", "--short", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
            "threads": threads,
            "new_tokens": new_tokens,
            "rounds": 0,
        },
        "rows": [
            {
                "engine": setting.engine,
                "precision": setting.precision,
                "kind": setting.kind,
                "head": None,
                "version": None,
                "file_mb": None,
                "status": "ok",
                "samples": [],
            }
            for setting in settings
        ],
    }


def fail(row: report.Row, setting: Setting, error: measure.WorkerFailed) -> None:
    row["status"] = f"failed: {error}"
    click.echo(f"{setting.engine} {setting.precision} {row['status']}", err=True)


def prepare(row: report.Row, setting: Setting, work: Path, threads: int, timeout_s: float) -> None:
    """Fill in what does not change from round to round."""
    if missing := setting.missing(work):
        row["status"] = f"skipped: no {', '.join(str(path.name) for path in missing)}"
        click.echo(f"{setting.engine} {setting.precision} {row['status']}; see --setup", err=True)
        return
    row["file_mb"] = measure.size_mb(setting.model(work))
    try:
        row["version"], row["head"] = measure.about(setting, work, threads, timeout_s)
    except measure.WorkerFailed as error:
        fail(row, setting, error)


def write(record: report.Record, output: Path) -> None:
    output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    output.write_text(report.markdown(record))


@click.command()
@click.option("--setup", is_flag=True, help="Install and convert what is missing, measure nothing.")
@click.option("--only", multiple=True, type=click.Choice(list(ENGINES)), help="These engines.")
@click.option("--precision", multiple=True, type=click.Choice(CLASSES), help="These classes.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", type=int, help="Default: the cores that this process may use.")
@click.option("--new-tokens", type=click.IntRange(min=2), default=64, show_default=True)
@click.option("--timeout", default=600.0, show_default=True, help="Seconds, of one process.")
@click.option("--work-dir", type=click.Path(path_type=Path), default=ROOT / "build" / "peers")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: table.md in the work dir."
)
@click.option(
    "--render",
    type=click.Path(path_type=Path, exists=True),
    help="Measure nothing: the table of this record.",
)
def main(
    setup: bool,
    only: tuple[str, ...],
    precision: tuple[str, ...],
    rounds: int,
    threads: int | None,
    new_tokens: int,
    timeout: float,
    work_dir: Path,
    output: Path | None,
    render: Path | None,
) -> None:
    if render:
        click.echo(report.markdown(json.loads(render.read_text())), nl=False)
        return
    work_dir = work_dir.resolve()
    if setup:
        script = [str(ROOT / "scripts/peers/setup"), str(work_dir), *(only or ENGINES)]
        sys.exit(subprocess.run(script, env={**os.environ, "PYTHON": sys.executable}).returncode)
    threads = threads or len(os.sched_getaffinity(0))
    settings = [
        setting
        for setting in SETTINGS
        if (not only or setting.engine in only) and (not precision or setting.kind in precision)
    ]
    command = command_line(
        rounds=rounds, threads=threads, new_tokens=new_tokens, only=only, precision=precision
    )
    record = new_record(settings, threads, new_tokens, command)
    rows = list(zip(record["rows"], settings, strict=True))
    for row, setting in rows:
        prepare(row, setting, work_dir, threads, timeout)
    output = output or work_dir / "table.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    for index in range(1, rounds + 1):
        for row, setting in rows:
            if row["status"] != "ok":
                continue
            click.echo(f"round {index}: {setting.engine} {setting.precision}", err=True)
            try:
                sample = measure.turn(setting, work_dir, threads, new_tokens, index, timeout)
                row["samples"].append({"round": index, **sample})
            except measure.WorkerFailed as error:
                fail(row, setting, error)
        record["run"]["rounds"] = index
        write(record, output)
    click.echo(report.markdown(record), nl=False)


if __name__ == "__main__":
    main()

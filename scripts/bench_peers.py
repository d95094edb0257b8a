"""Ingot beside llama.cpp, OpenVINO GenAI, ONNX Runtime GenAI and torch, on one model in one run.

    python scripts/bench_peers.py --setup            # once: engines, the model, its conversions
    python scripts/bench_peers.py --rounds 5 -o benchmarks/peers.md

A round goes through all settings in turn, each in fresh processes, so that what the machine does
meanwhile falls on all alike. The record (JSON, beside the table) is written after every round.
What is not set up is skipped; what fails is a row that says why. The settings are in
peers/engines.py, and how a worker answers is in peers/protocol.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
from peers import measure, report, rounds
from peers.engines import CLASSES, ENGINES, SETTINGS, Setting

MODEL = "Llama at the shape of TinyLlama-1.1B, random weights"


def new_row(setting: Setting) -> report.Row:
    return {
        "engine": setting.engine,
        "precision": setting.precision,
        "kind": setting.kind,
        "head": None,
        "version": None,
        "file_mb": None,
        "status": "ok",
        "samples": [],
    }


def prepare(row: report.Row, setting: Setting, work: Path, threads: int, timeout_s: float) -> None:
    """Fill in what does not change from round to round."""
    if rounds.skip_if_missing(row, setting, work):
        return
    row["file_mb"] = measure.size_mb(setting.model(work))
    try:
        row["version"], row["head"] = measure.about(setting, work, threads, timeout_s)
    except measure.WorkerFailed as error:
        rounds.fail(row, setting, error)


@click.command()
@click.option("--setup", is_flag=True, help="Install and convert what is missing, measure nothing.")
@click.option("--only", multiple=True, type=click.Choice(list(ENGINES)), help="These engines.")
@click.option("--precision", multiple=True, type=click.Choice(CLASSES), help="These classes.")
@click.option("--rounds", "count", default=5, show_default=True)
@click.option("--threads", type=int, help="Default: the cores that this process may use.")
@click.option("--new-tokens", type=click.IntRange(min=2), default=64, show_default=True)
@click.option("--timeout", default=600.0, show_default=True, help="Seconds, of one process.")
@click.option(
    "--work-dir", type=click.Path(path_type=Path), default=rounds.ROOT / "build" / "peers"
)
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
    count: int,
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
        sys.exit(rounds.set_up(work_dir, "decoders", only or ENGINES))
    threads = threads or len(os.sched_getaffinity(0))
    settings = [
        setting
        for setting in SETTINGS
        if (not only or setting.engine in only) and (not precision or setting.kind in precision)
    ]
    command = rounds.command_line(
        "scripts/bench_peers.py",
        rounds=count,
        threads=threads,
        new_tokens=new_tokens,
        only=only,
        precision=precision,
    )
    rows = [(new_row(setting), setting) for setting in settings]
    record = rounds.new_record(
        [row for row, _ in rows],
        model=MODEL,
        command=command,
        threads=threads,
        new_tokens=new_tokens,
    )
    for row, setting in rows:
        prepare(row, setting, work_dir, threads, timeout)

    def turn(setting: Setting, index: int) -> dict[str, Any]:
        return measure.turn(setting, work_dir, threads, new_tokens, index, timeout)

    output = output or work_dir / "table.md"
    rounds.Rounds(count, turn, report.markdown, output).run(record, rows)
    click.echo(report.markdown(record), nl=False)


if __name__ == "__main__":
    main()

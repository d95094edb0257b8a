"""Ingot beside llama.cpp, OpenVINO GenAI, ONNX Runtime GenAI and torch, on one model in one run.

    python scripts/bench_peers.py --setup            # once: engines, the model, its conversions
    python scripts/bench_peers.py --rounds 5 -o benchmarks/peers.md

A round goes through all settings in turn, each in fresh processes, so that what the machine does
meanwhile falls on all alike. The record (JSON, beside the table) is written after every round.
What is not set up is skipped; what fails is a row that says why. The settings are in
peers/engines.py, and how a worker answers is in peers/protocol.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from peers import measure, options, report, rounds
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


@options.command(
    "decoders", ENGINES, CLASSES, timeout_s=600.0, table="table.md", markdown=report.markdown
)
@click.option("--new-tokens", type=click.IntRange(min=2), default=64, show_default=True)
def main(asked: options.Asked, new_tokens: int) -> None:
    settings = [
        setting
        for setting in SETTINGS
        if (not asked.only or setting.engine in asked.only)
        and (not asked.precision or setting.kind in asked.precision)
    ]
    command = rounds.command_line(
        "scripts/bench_peers.py",
        rounds=asked.rounds,
        threads=asked.threads,
        new_tokens=new_tokens,
        only=asked.only,
        precision=asked.precision,
    )
    rows = [(new_row(setting), setting) for setting in settings]
    record = rounds.new_record(
        [row for row, _ in rows],
        model=MODEL,
        command=command,
        threads=asked.threads,
        new_tokens=new_tokens,
    )
    for row, setting in rows:
        prepare(row, setting, asked.work_dir, asked.threads, asked.timeout_s)

    def turn(setting: Setting, index: int) -> dict[str, Any]:
        return measure.turn(
            setting, asked.work_dir, asked.threads, new_tokens, index, asked.timeout_s
        )

    rounds.Rounds(asked.rounds, turn, report.markdown, asked.output).run(record, rows)
    click.echo(report.markdown(record), nl=False)


if __name__ == "__main__":
    main()

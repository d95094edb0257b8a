"""Ingot beside ONNX Runtime, OpenVINO, torch.compile and eager torch, on two encoders in one run.

    python scripts/bench_encoders.py --setup         # once: engines, models, conversions
    python scripts/bench_encoders.py --rounds 5 -o benchmarks/encoders.md

A text encoder and an image classifier (peers/encoders/settings.py) at batches of 1 and 8: the time
of a call, and whether its output is that of eager torch in float32. As in bench_peers.py a round
goes through all settings in turn, each in a fresh process. What is not set up is skipped; what
fails is a row that says why. How a worker answers is in peers/encoders/protocol.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click
from peers import rounds
from peers.encoders import measure, report
from peers.encoders.settings import CLASSES, ENGINES, NETWORKS, SETTINGS, EncoderSetting


def new_row(setting: EncoderSetting) -> report.Row:
    return {
        "network": setting.network,
        "engine": setting.engine,
        "precision": setting.precision,
        "kind": setting.kind,
        "status": "ok",
        "samples": [],
    }


@click.command()
@click.option("--setup", is_flag=True, help="Install and convert what is missing, measure nothing.")
@click.option("--only", multiple=True, type=click.Choice(list(ENGINES)), help="These engines.")
@click.option("--network", multiple=True, type=click.Choice(list(NETWORKS)), help="These networks.")
@click.option("--precision", multiple=True, type=click.Choice(CLASSES), help="These classes.")
@click.option("--rounds", "count", default=5, show_default=True)
@click.option("--threads", type=int, help="Default: the cores that this process may use.")
@click.option("--seconds", default=0.3, show_default=True, help="Of calls, a batch and a round.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds, of one process.")
@click.option("--work-dir", type=click.Path(path_type=Path), default=rounds.ROOT / "build/peers")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: encoders.md in the work dir."
)
@click.option(
    "--render",
    type=click.Path(path_type=Path, exists=True),
    help="Measure nothing: the table of this record.",
)
def main(
    setup: bool,
    only: tuple[str, ...],
    network: tuple[str, ...],
    precision: tuple[str, ...],
    count: int,
    threads: int | None,
    seconds: float,
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
        sys.exit(rounds.set_up(work_dir, "encoders", only or ENGINES))
    threads = threads or len(os.sched_getaffinity(0))
    rows = [
        (new_row(setting), setting)
        for setting in SETTINGS
        if (not only or setting.engine in only)
        and (not network or setting.network in network)
        and (not precision or setting.kind in precision)
    ]
    command = rounds.command_line(
        "scripts/bench_encoders.py",
        rounds=count,
        threads=threads,
        seconds=seconds,
        only=only,
        network=network,
        precision=precision,
    )
    record = rounds.new_record(
        [row for row, _ in rows], command=command, threads=threads, seconds=seconds
    )
    for row, setting in rows:
        rounds.skip_if_missing(row, setting, work_dir)

    def turn(setting: EncoderSetting, index: int) -> dict[str, Any]:
        return measure.turn(setting, work_dir, threads, seconds, timeout)

    output = output or work_dir / "encoders.md"
    rounds.Rounds(count, turn, report.markdown, output).run(record, rows)
    click.echo(report.markdown(record), nl=False)


if __name__ == "__main__":
    main()

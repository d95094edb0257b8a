"""Ingot beside ONNX Runtime, OpenVINO, torch.compile and eager torch, on two encoders in one run.

    python scripts/bench_encoders.py --setup         # once: engines, models, conversions
    python scripts/bench_encoders.py --rounds 5 -o benchmarks/encoders.md

A text encoder and an image classifier (peers/encoders/settings.py) at batches of 1 and 8: the time
of a call, and whether its output is that of eager torch in float32. As in bench_peers.py a round
goes through all settings in turn, each in a fresh process. What is not set up is skipped; what
fails is a row that says why. How a worker answers is in peers/encoders/protocol.py.
"""

from __future__ import annotations

from typing import Any

import click
from peers import options, rounds
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


@options.command(
    "encoders", ENGINES, CLASSES, timeout_s=300.0, table="encoders.md", markdown=report.markdown
)
@click.option("--network", multiple=True, type=click.Choice(list(NETWORKS)), help="These networks.")
@click.option("--seconds", default=0.3, show_default=True, help="Of calls, a batch and a round.")
def main(asked: options.Asked, network: tuple[str, ...], seconds: float) -> None:
    rows = [
        (new_row(setting), setting)
        for setting in SETTINGS
        if (not asked.only or setting.engine in asked.only)
        and (not network or setting.network in network)
        and (not asked.precision or setting.kind in asked.precision)
    ]
    command = rounds.command_line(
        "scripts/bench_encoders.py",
        rounds=asked.rounds,
        threads=asked.threads,
        seconds=seconds,
        only=asked.only,
        network=network,
        precision=asked.precision,
    )
    record = rounds.new_record(
        [row for row, _ in rows], command=command, threads=asked.threads, seconds=seconds
    )
    for row, setting in rows:
        rounds.skip_if_missing(row, setting, asked.work_dir)

    def turn(setting: EncoderSetting, index: int) -> dict[str, Any]:
        return measure.turn(setting, asked.work_dir, asked.threads, seconds, asked.timeout_s)

    rounds.Rounds(asked.rounds, turn, report.markdown, asked.output).run(record, rows)
    click.echo(report.markdown(record), nl=False)


if __name__ == "__main__":
    main()

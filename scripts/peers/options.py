"""What bench_peers.py and bench_encoders.py take alike, and do before they measure."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from . import rounds
from .report import Record


@dataclass(frozen=True)
class Asked:
    """What is to be measured, and where; empty `only` and `precision` mean all."""

    only: tuple[str, ...]
    precision: tuple[str, ...]
    rounds: int
    threads: int
    timeout_s: float
    work_dir: Path
    output: Path  # the table


def command(
    task: str,
    engines: Iterable[str],
    classes: Iterable[str],
    *,
    timeout_s: float,
    table: str,
    markdown: Callable[[Record], str],
) -> Callable[[Callable[..., None]], click.Command]:
    """A command of a function that takes `Asked` and its own options.

    It sets up `task`, or shows the table of a record, where that is what was asked instead.
    """

    def decorate(measure: Callable[..., None]) -> click.Command:
        @click.command()
        @click.option(
            "--setup", is_flag=True, help="Install and convert what is missing, measure nothing."
        )
        @click.option(
            "--only", multiple=True, type=click.Choice(list(engines)), help="These engines."
        )
        @click.option(
            "--precision", multiple=True, type=click.Choice(list(classes)), help="These classes."
        )
        @click.option("--rounds", "count", default=5, show_default=True)
        @click.option("--threads", type=int, help="Default: the cores that this process may use.")
        @click.option(
            "--timeout", default=timeout_s, show_default=True, help="Seconds, of one process."
        )
        @click.option(
            "--work-dir", type=click.Path(path_type=Path), default=rounds.ROOT / "build/peers"
        )
        @click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            help=f"Default: {table} in the work dir.",
        )
        @click.option(
            "--render",
            type=click.Path(path_type=Path, exists=True),
            help="Measure nothing: the table of this record.",
        )
        @functools.wraps(measure)
        def main(
            setup: bool,
            only: tuple[str, ...],
            precision: tuple[str, ...],
            count: int,
            threads: int | None,
            timeout: float,
            work_dir: Path,
            output: Path | None,
            render: Path | None,
            **own: Any,
        ) -> None:
            if render:
                click.echo(markdown(json.loads(render.read_text())), nl=False)
                return
            work_dir = work_dir.resolve()
            if setup:
                sys.exit(rounds.set_up(work_dir, task, only or engines))
            asked = Asked(
                only,
                precision,
                count,
                threads or len(os.sched_getaffinity(0)),
                timeout,
                work_dir,
                output or work_dir / table,
            )
            measure(asked, **own)

        return main

    return decorate

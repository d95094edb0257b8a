"""`ingot analyze` held against the run: predicted and measured times of a decoder's package.

    python scripts/predicted.py PACKAGE [--prompt 128] [--new-tokens 48] [--rounds 5] [--threads N]

Prediction, in a process of its own, and generation take turns, since a shared machine's speed
changes from one second to the next. So does the CPU time that other processes took, which is
printed: rounds with more than a twentieth of a core are shown and left out of the medians.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import click

import ingot
from ingot.runtime.prompts import made_up

_FREE = 0.05  # cores that others may take


class Times(NamedTuple):
    """Milliseconds of prefill and of a decode step."""

    prefill: float
    decode: float


def predicted(package: Path, prompt: int, new_tokens: int, threads: int) -> Times:
    """In the middle of what is generated."""
    sizes = ("--prompt", prompt, "--context", prompt + new_tokens // 2, "--threads", threads)
    command = [sys.executable, "-m", "ingot", "analyze", package, "--json", *sizes]
    found = json.loads(subprocess.check_output(list(map(str, command))))["phases"]
    return Times(found["prefill"]["seconds"] * 1e3, found["decode"]["seconds"] * 1e3)


def measured(package: ingot.Package, prompt: int, new_tokens: int) -> Times:
    """The decode step is the median one."""
    tokens = made_up(prompt, package.manifest["model"]["vocab_size"])
    at = [time.perf_counter()]
    with package.session() as session:
        for _ in session.generate(tokens, max_new_tokens=new_tokens, ignore_eos=True):
            at.append(time.perf_counter())
    steps = [after - before for before, after in zip(at[1:], at[2:], strict=False)]
    return Times((at[1] - at[0]) * 1e3, statistics.median(steps) * 1e3)


def busy_seconds() -> tuple[float, float]:
    """CPU time of the machine, and of this process and those it has waited for (proc(5))."""
    fields = list(map(int, Path("/proc/stat").read_text().split()[1:9]))
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return (sum(fields) - fields[3] - fields[4] - fields[7]) / 100, own


def turn(package: ingot.Package, path: Path, **sizes: Any) -> tuple[Times, Times, float]:
    """A prediction, a measurement, and the cores that others took meanwhile."""
    threads, (machine, own), begun = sizes.pop("threads"), busy_seconds(), time.perf_counter()
    ours, theirs = predicted(path, **sizes, threads=threads), measured(package, **sizes)
    machine_after, own_after = busy_seconds()
    others = (machine_after - machine) - (own_after - own)
    return ours, theirs, others / (time.perf_counter() - begun)


@click.command()
@click.argument("path", metavar="PACKAGE", type=click.Path(path_type=Path))
@click.option("--prompt", default=128, show_default=True)
@click.option("--new-tokens", default=48, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=0, help="0: the cores this process may use.")
def main(path: Path, rounds: int, threads: int, **sizes: int) -> None:
    package = ingot.load(path, threads=threads)
    measured(package, **sizes)  # reads the file, once
    kept = []
    for _ in range(rounds):
        ours, theirs, others = turn(package, path, threads=threads, **sizes)
        click.echo(f"{line(ours, theirs)}; others took {others:.2f} cores")
        if others <= _FREE:
            kept.append((ours, theirs))
    if kept:
        medians = (
            Times(*map(statistics.median, zip(*one, strict=True)))
            for one in zip(*kept, strict=True)
        )
        click.echo(f"medians of {len(kept)}: {line(*medians)}")


def line(ours: Times, theirs: Times) -> str:
    parts = (
        f"{name} {mine:.1f} ms predicted, {real:.1f} measured ({mine / real - 1:+.0%})"
        for name, mine, real in zip(Times._fields, ours, theirs, strict=True)
    )
    return ", ".join(parts)


if __name__ == "__main__":
    main()

"""What bench_peers.py and bench_encoders.py share: what a record begins with, and the rounds.

A record is JSON: "machine", "run" (how it was measured) and "rows", one for each setting, with
"status" ("ok" or why not) and "samples", one for each round that the setting took part in.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .engines import Setting
from .measure import WorkerFailed
from .report import Record, Row

ROOT = Path(__file__).parents[2]


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


def command_line(script: str, **options: Any) -> str:
    """What repeats the measurement; where it keeps its files is left out."""
    words = ["python", script]
    for name, value in options.items():
        for one in value if isinstance(value, tuple) else (value,):
            words += [f"--{name.replace('_', '-')}", str(one)]
    return shlex.join(words)


def new_record(rows: list[Row], **run: Any) -> Record:
    """run: what the script itself says of how it measures."""
    return {
        "machine": machine(),
        "run": {
            "date": datetime.date.today().isoformat(),
            "commit": git("rev-parse", "--short", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
            "rounds": 0,
            **run,
        },
        "rows": rows,
    }


def set_up(work: Path, task: str, engines: Iterable[str]) -> int:
    """Installs and converts what the engines lack for a task; the script's exit status."""
    script = [str(ROOT / "scripts/peers/setup"), str(work), task, *engines]
    return subprocess.run(script, env={**os.environ, "PYTHON": sys.executable}).returncode


def skip_if_missing(row: Row, setting: Setting, work: Path) -> bool:
    if missing := setting.missing(work):
        row["status"] = f"skipped: no {', '.join(str(path.name) for path in missing)}"
        click.echo(f"{setting.name} {row['status']}; see --setup", err=True)
    return bool(missing)


def fail(row: Row, setting: Setting, error: WorkerFailed) -> None:
    row["status"] = f"failed: {error}"
    click.echo(f"{setting.name} {row['status']}", err=True)


@dataclass(frozen=True)
class Rounds:
    """turn(setting, index): one sample. markdown(record): the table. Both are written to `output`
    after every round, the record beside the table."""

    count: int
    turn: Callable[[Any, int], dict[str, Any]]
    markdown: Callable[[Record], str]
    output: Path

    def run(self, record: Record, rows: list[tuple[Row, Setting]]) -> None:
        """Fill in the rows' samples; a setting that fails is out of the rounds to come."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        for index in range(1, self.count + 1):
            for row, setting in rows:
                if row["status"] != "ok" or (index - 1) % setting.every:
                    continue
                click.echo(f"round {index}: {setting.name}", err=True)
                try:
                    row["samples"].append({"round": index, **self.turn(setting, index)})
                except WorkerFailed as error:
                    fail(row, setting, error)
            record["run"]["rounds"] = index
            self.output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
            self.output.write_text(self.markdown(record))

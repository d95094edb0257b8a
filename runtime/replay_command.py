"""`ingot replay`: one captured op call, run alone in libingot_ops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .errors import BadInput
from .replay import Replay


def run(path: Path, repeats: int, threads: int, as_json: bool) -> None:
    if repeats < 1 or threads < 0:
        raise BadInput("--repeats must be at least 1, --threads not negative")
    replay = Replay(path, threads)
    result: dict[str, Any] = {**replay.verify(), **replay.time(repeats)}
    if as_json:
        click.echo(json.dumps(result))
        return
    level = result["level"]
    captured = "" if level == result["captured_level"] else f", captured on {replay.level}"
    click.echo(f"{result['op']}, call {result['call']}, on {level}{captured}")
    for output in result["outputs"]:
        error = f"largest error {output['max_error']:.3g}"
        found = "bit for bit as captured" if output["bitwise"] else error
        click.echo(f"  {output['name']} {output['dtype']} {output['shape']}: {found}")
    click.echo(
        f"  median {result['median_ms']:.4f} ms, p10 {result['p10_ms']:.4f}, p90"
        f" {result['p90_ms']:.4f}, of {repeats} calls with warm caches"
    )

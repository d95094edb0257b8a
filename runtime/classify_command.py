"""`ingot classify`: what an image shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..profiling.terminal import printable
from . import load


def run(path: Path, image: Path, top: int, as_json: bool, **options: Any) -> None:
    """options: of `load`."""
    found = load(path, **options).classify(image)[:top]
    if as_json:
        labels = [{"label": label, "probability": value} for label, value in found]
        click.echo(json.dumps({"labels": labels}))
        return
    for label, probability in found:
        click.echo(f"{probability:7.2%}  {printable(label)}")

"""`ingot classify`: what an image shows."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import load


def run(path: Path, image: Path, top: int, threads: int, as_json: bool) -> None:
    found = load(path, threads=threads).classify(image)[:top]
    if as_json:
        labels = [{"label": label, "probability": value} for label, value in found]
        click.echo(json.dumps({"labels": labels}))
        return
    for label, probability in found:
        click.echo(f"{probability:7.2%}  {label}")

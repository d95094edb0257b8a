"""`ingot embed`: sentence embeddings of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import load
from .errors import BadInput, reason


def run(
    path: Path, texts: tuple[str, ...], file: Path | None, as_json: bool, **options: Any
) -> None:
    """`file` holds a text a line; they come after `texts`. options: of `load`."""
    wanted = list(texts) + _lines(file)
    if not wanted:
        raise BadInput("give --text TEXT, as often as you like, or --file FILE with one a line")
    embeddings = load(path, **options).embed(wanted)
    if as_json:
        click.echo(json.dumps({"embeddings": embeddings.tolist()}))
        return
    for embedding in embeddings:
        click.echo(" ".join(f"{value:.6f}" for value in embedding))


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{file} cannot be read ({reason(error)}); give a file of UTF-8 text"
        ) from error

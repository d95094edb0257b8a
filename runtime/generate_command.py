"""`ingot run`: generate, stream the text, say how fast it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from .. import process
from . import capi, load
from .errors import BadInput
from .package import Package
from .prompts import parse_tokens


def run(
    path: Path,
    *,
    prompt: str | None,
    tokens: str | None,
    threads: int,
    copy_weights: bool,
    trace: Path | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    if (prompt is None) == (tokens is None):
        raise BadInput("give either --prompt TEXT or --tokens 1,2,3")
    begun = process.now()
    if copy_weights and path.suffix == ".onnx":
        raise BadInput("--copy-weights is for packages; ONNX Runtime has a copy of its own")
    own: dict[str, Any] = {"copy_weights": True} if copy_weights else {}
    package = load(path, threads=threads, **own)
    load_ms = (process.now() - begun) * 1e3
    ids = parse_tokens(tokens) if tokens is not None else package.encode(prompt or "")
    if trace:
        if not isinstance(package, Package):
            raise BadInput("--trace is for packages; ingot compare traces ONNX models")
        capi.library().ingot_trace_start()
    first, made, text = 0.0, [], ""
    with package.session() as session:
        for piece in session.generate(ids, **sampling):
            first = first or process.now()
            if piece.token >= 0:
                made.append(piece.token)
            text += piece.text
            if not as_json:
                shown = piece.text if package.manifest["tokenizer"] else f"{piece.token} "
                click.echo(shown, nl=False)
        stats = session.stats
    if trace:
        capi.check(capi.library().ingot_trace_write(os.fsencode(trace)))
    if not as_json:
        click.echo()
        return
    assert stats is not None
    click.echo(
        json.dumps(
            {
                "text": text,
                "tokens": made,
                "prompt_tokens": len(ids),
                "prefill_tok_s": rate(len(ids), stats.prefill_seconds),
                "decode_tok_s": rate(stats.new_tokens - 1, stats.decode_seconds),
                "load_ms": load_ms,
                "first_token_ms": (first - process.start_time()) * 1e3,
                "peak_rss_mb": process.peak_rss_mb(),
            }
        )
    )


def rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 and count > 0 else 0.0

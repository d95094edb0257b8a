"""Ingot through Python. The cold start is measured with ingot-run instead; see protocol.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from protocol import Generate, serve, timed

import ingot
from ingot.runtime.package import read_manifest


def head(manifest: dict[str, Any]) -> str:
    recipe = manifest.get("quantization")
    for rule in recipe["rules"] if recipe else ():  # the first that matches decides
        if re.fullmatch(rule["modules"], "lm_head"):
            if rule["bits"]:
                return f"int{rule['bits']}"
            break
    return str(manifest["model"]["dtype"]).replace("bfloat", "bf")


def about(model: str) -> dict[str, str]:
    return {"version": ingot.__version__, "head": head(read_manifest(model))}


def load(model: str, threads: int) -> Generate:
    package = ingot.load(model, threads=threads)

    def tokens(prompt: list[int], count: int) -> Iterator[int]:
        pieces = package.generate(prompt, max_new_tokens=count, temperature=0.0, ignore_eos=True)
        # The last piece may be text alone, of bytes that made no whole character.
        return (piece.token for piece in pieces if piece.token >= 0)

    return lambda prompt, count: timed(tokens(prompt, count))


if __name__ == "__main__":
    serve(about, load)

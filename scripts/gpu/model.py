"""Decoding by a whole model on the GPU: packages, and torch.compile with a static cache, as shares
of what memory allows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bench_model import SHAPES, package_of, step_breakdown

import ingot
from ingot.export import ExportError, torch_versions
from ingot.runtime.bench_command import bytes_per_token, measure
from ingot.runtime.errors import IngotError

from . import carried
from .static_llama import build

_PROMPT, _NEW = 512, 64


def whole(shape: str, recipe: str) -> Path:
    """The shape's package: of what was carried here, or exported here."""
    if carried.path_of(shape, recipe).exists():
        return carried.whole(shape, recipe)
    torch_versions.check_gpus()  # before a model is made
    return package_of(shape, "bfloat16", carried.RECIPES[recipe], None, device="cuda")


def package(shape: str, recipe: str, bytes_s: float) -> Iterator[dict[str, Any]]:
    """Rows of the table: a decode step, and what it consists of, kernel by kernel. `bytes_s`: what
    the device copies a second."""
    opened = ingot.load(whole(shape, recipe))
    speed = measure(opened, _PROMPT, _NEW, 3)
    needed = bytes_per_token(opened.manifest, _PROMPT + _NEW // 2)
    name = f"{shape} {recipe} decode"
    yield {"name": name, **_decode(speed["decode_tok_s"], needed, bytes_s)}
    for part, milliseconds in step_breakdown(opened, _PROMPT).items():
        yield {"name": f"{name}, traced: {part}", "us": 1e3 * milliseconds}


def compiled(shape: str, bytes_s: float) -> dict[str, Any]:
    """torch.compile(mode="max-autotune") of the same shape in bfloat16."""
    model = build(SHAPES[shape], _PROMPT + 2 * _NEW)
    step = torch.compile(model, mode="max-autotune", fullgraph=True)
    token = torch.ones(1, dtype=torch.int64, device="cuda")
    times = []
    with torch.no_grad():
        for position in range(_PROMPT, _PROMPT + _NEW):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            token = step(token, torch.tensor([position], device="cuda")).argmax(-1)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begun)
    middle = sorted(times[_NEW // 2 :])[_NEW // 4]  # the first compile and warm up
    read = sum(p.nbytes for name, p in model.named_parameters() if not name.startswith("embed"))
    caches = sum(b.nbytes for name, b in model.named_buffers() if name.startswith("blocks"))
    name = f"{shape} bf16 decode by torch.compile"
    return {"name": name, **_decode(1 / middle, read + caches, bytes_s)}


def _decode(tok_s: float, needed: int, bytes_s: float) -> dict[str, Any]:
    return {
        "us": 1e6 / tok_s,
        "tok_s": tok_s,
        "gb_s": needed * tok_s / 1e9,
        "ceiling_share": needed * tok_s / bytes_s,
    }


def rows(shape: str, recipe: str, bytes_s: float) -> Iterator[dict[str, Any]]:
    """recipe: as RECIPES of carried.py, or "compiled"."""
    if recipe == "compiled":
        yield compiled(shape, bytes_s)
        return
    try:
        yield from package(shape, recipe, bytes_s)
    except (ExportError, IngotError) as error:
        yield {"name": f"{shape} {recipe} decode", "failed": str(error)}

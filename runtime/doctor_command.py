"""`ingot doctor`: what this machine can do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .. import native
from . import controls, ops
from .errors import IngotError
from .gpus import gpus

_LIBRARIES = (
    "libingot.so.1",
    "libingot_host.so.1",
    "libingot_ops.so.1",
    "libingot_cuda.so.1",
    "torch/libingot_host.so.1",
    "ingot-run",
)
# Extra of the distribution: what it is for, and the modules that it brings.
_EXTRAS = {
    "export": ("ingot export of packages", ("torch", "safetensors")),
    "vision": ("ingot classify", ("PIL",)),
    "report": ("charts in pages (-o page.html)", ("plotly",)),
    "sign": ("ingot sign, and --key", ("cryptography",)),
    "onnx": ("--format onnx, and models in ONNX", ("onnx", "onnxscript", "onnxruntime")),
}
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def _version(distribution: str) -> str | None:
    """Installed version, read without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _found(name: str) -> str | None:
    try:
        return str(native.find(name))
    except FileNotFoundError:
        return None


def _missing(modules: tuple[str, ...]) -> list[str]:
    return [module for module in modules if importlib.util.find_spec(module) is None]


def _huge_pages() -> str | None:
    """The kernel's setting: `always`, `madvise` or `never`."""
    try:
        chosen = re.search(r"\[(\w+)\]", _HUGE_PAGES.read_text())
    except OSError:
        return None
    return chosen[1] if chosen else None


def _gpus() -> dict[str, Any]:
    """Those of ingot.h, or why there are none. A package for the CPU needs none."""
    ops_library = _found("libingot_ops_cuda.so.1")
    try:
        return {**gpus(), "ops": ops_library, "refused": None}
    except IngotError as error:
        return {"driver": None, "devices": [], "ops": ops_library, "refused": str(error)}


def _gpu_text(found: dict[str, Any]) -> str:
    if found["refused"]:
        return f"none: {found['refused']}"
    named = ", ".join(
        f"{gpu['name']} ({gpu['architecture']}, {gpu['memory_bytes'] / 1e9:.0f} GB)"
        for gpu in found["devices"]
    )
    ops = "" if found["ops"] else "; Ingot was built without ops for it (scripts/build, with nvcc)"
    return f"{named}, driver for CUDA {found['driver']}{ops}"


def examine(torch_refused: str | None) -> dict[str, Any]:
    """torch_refused: why export does not work with the installed torch."""
    try:
        level, refusal = ops.level(), None
    except IngotError as error:
        level, refusal = None, str(error)
    return {
        "cpu_level": level,
        "cpu_level_refused": refusal,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "gpus": _gpus(),
        "libraries": {name: _found(name) for name in _LIBRARIES},
        "compiler": shutil.which(os.environ.get("CXX", "g++")),
        "torch": _version("torch"),
        "torch_refused": torch_refused,
        "safetensors": _version("safetensors"),
        "missing": {extra: _missing(modules) for extra, (_, modules) in _EXTRAS.items()},
        "huge_pages": _huge_pages(),
    }


def list_controls(as_json: bool) -> None:
    """Prints the table of controls (docs/controls.md)."""
    found = controls.table()
    if as_json:
        click.echo(json.dumps({"controls": [asdict(control) for control in found]}))
        return
    for control in found:
        click.echo(f"{control.name}={control.value}\n    {control.variable}: {control.meaning}")


def run(as_json: bool, torch_refused: str | None) -> None:
    """torch_refused: as for `examine`."""
    found = examine(torch_refused)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"CPU level    {found['cpu_level'] or found['cpu_level_refused']}")
    click.echo(f"cores        {found['cores']}")
    click.echo(f"memory       {found['memory_gb']:.1f} GB")
    click.echo(f"GPU          {_gpu_text(found['gpus'])}")
    for name, path in found["libraries"].items():
        click.echo(f"{name:<25}{path or 'missing; build it with ./scripts/build'}")
    can_export = found["compiler"] and not torch_refused and found["safetensors"]
    torch = f"{found['torch']} ({torch_refused or 'tested'})"
    click.echo(f"torch        {torch if found['torch'] else 'not installed (export needs it)'}")
    click.echo(f"compiler     {found['compiler'] or 'none (export needs g++)'}")
    for extra, (purpose, _) in _EXTRAS.items():
        lacks = ", ".join(found["missing"][extra])
        state = f"no {lacks}: pip install 'ingot[{extra}]'" if lacks else "installed"
        click.echo(f"{extra:<13}{state}  ({purpose})")
    click.echo(f"huge pages   {found['huge_pages'] or 'unknown'}  (--copy-weights asks for them)")
    click.echo(
        f"can export   {'yes' if can_export else 'no'}; can run packages: "
        f"{'yes' if found['libraries']['libingot.so.1'] else 'no'}"
    )

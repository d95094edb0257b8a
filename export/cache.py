"""Compiled graphs by fingerprint, kept between exports.

The fingerprint covers all that decides the graph and its code: the module's structure and
configuration, the sources that build and capture it, the options, the toolchain. Of weights'
values it covers only the few that Inductor writes into code, so a fine-tuned checkpoint of the same
shape is packaged without tracing or compiling anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..custom_ops.shims import schemas
from .contracts import Contract, named_tensors
from .errors import ExportError
from .targets import Target
from .toolchain import compiler_version

_ROOT = Path(__file__).resolve().parents[1]
INLINED = 8  # elements of a vector at most (GraphLowering.can_inline_constant)
_SOURCES = ("custom_ops", "models", "quant", "export")


@dataclass(frozen=True)
class Compiled:
    """A compiled graph: its object, the constants to bind before a run, our ops that it calls.

    facts: of the compile record, what the graph decides.
    """

    shared_object: Path
    constants: tuple[str, ...]
    ops: tuple[str, ...]
    facts: dict[str, Any]


def folder() -> Path:
    """INGOT_CACHE_DIR, else `ingot` in the user's cache folder; made for this user alone.

    What lies there becomes the code of packages. Raises ExportError if others may write to it.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ingot"
    found = Path(os.environ.get("INGOT_CACHE_DIR") or default).absolute()
    try:
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = found.stat()
    except OSError as error:
        raise ExportError(
            f"no cache in {found} ({error.strerror}); set INGOT_CACHE_DIR to a folder of yours"
        ) from error
    if facts.st_uid not in (0, os.geteuid()) or facts.st_mode & 0o022:
        raise ExportError(
            f"others may write to the cache {found}, which holds code; chmod go-w it if it is"
            " yours, or set INGOT_CACHE_DIR to a folder of yours"
        )
    return found


@cache
def _sources_hash() -> str:
    digest = hashlib.sha256()
    for part in _SOURCES:
        for path in sorted((_ROOT / part).rglob("*.*")):
            if path.suffix in (".py", ".h"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fingerprint(contract: Contract, target: Target, options: dict[str, Any]) -> str:
    """SHA-256 of all that decides the code. Small tensors are inlined: their values count."""
    tensors = [
        (name, str(t.dtype), tuple(t.shape), t.tolist() if t.numel() <= INLINED else None)
        for name, t in sorted(named_tensors(contract.module).items())
    ]
    parts = (
        str(contract.module),
        contract.identity,
        tensors,
        _sources_hash(),
        schemas(),
        sorted((name, str(value)) for name, value in options.items()),
        (target.name, target.toolchain),
        torch.__version__,
        compiler_version(),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@contextmanager
def staging(entry: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `entry` by one rename: no half entry is seen, nor left."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=entry.parent, ignore_cleanup_errors=True) as name:
        yield Path(name)
        with suppress(OSError):  # another export made it first
            Path(name).rename(entry)


def find(key: str) -> Compiled | None:
    """None, too, for an entry that is damaged, which is removed."""
    entry = folder() / "compiled" / key
    shared_object = entry / "model.so"
    try:
        described = json.loads((entry / "entry.json").read_text())
        if described["sha256"] != _sha256(shared_object):
            raise ValueError("model.so is not what was put there")
        constants, ops = tuple(described["constants"]), tuple(described["ops"])
        return Compiled(shared_object, constants, ops, described["facts"])
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(entry, ignore_errors=True)
        return None


def publish(key: str, made: Compiled, sources: list[Path]) -> Compiled:
    """Keep a compiled graph, and its C++ for the reader."""
    with staging(folder() / "compiled" / key) as entry:
        shutil.copy(made.shared_object, entry / "model.so")
        for source in sources:
            shutil.copy(source, entry)
        described = {
            "constants": made.constants,
            "ops": made.ops,
            "facts": made.facts,
            "sha256": _sha256(made.shared_object),
        }
        (entry / "entry.json").write_text(json.dumps(described))
    found = find(key)
    assert found is not None
    return found

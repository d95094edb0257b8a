"""Compiled graphs by fingerprint, kept between exports.

The fingerprint covers all that decides the graph and its code: the module's structure and
configuration, the sources that build and capture it, the options, the toolchain. Of weights'
values it covers only the few that Inductor writes into code, so a fine-tuned checkpoint of the same
shape is packaged without tracing or compiling anything.

Beside the graphs lies what is made once a machine, such as precompiled headers. What was used
longest ago goes when all of it is larger than it may be.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
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
_ENTRIES = ("compiled", "cpp", "cuda")  # folders of entries, which are folders
_DEFAULT_GB = 4.0
_IN_USE_SECONDS = 3600  # what was used since then may be in use
_LOG = logging.getLogger(__name__)


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


def limit_bytes() -> float:
    """INGOT_CACHE_GB, what the entries may take. Raises ExportError for what is no size."""
    given = os.environ.get("INGOT_CACHE_GB") or str(_DEFAULT_GB)
    try:
        limit = float(given) * 1e9
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise ExportError(f'INGOT_CACHE_GB is "{given}"; give gigabytes, such as {_DEFAULT_GB:g}')
    return limit


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time says that an entry is in use, or removes entries."""
    try:
        lock = (folder() / "lock").open("a")
    except OSError:  # of a cache of root's, which its owner alone changes
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def use(entry: Path) -> bool:
    """Whether it is there. If so, nobody removes it in the next hour."""
    with _alone():
        with suppress(OSError):
            os.utime(entry)
        return entry.is_dir()


def _bytes_of(entry: Path) -> int:
    found = 0
    for path in entry.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            found += path.lstat().st_size
    return found


def _entries() -> list[tuple[float, int, Path]]:
    """When it was used last, bytes, and where, of each, the oldest first."""
    found = []
    for part in _ENTRIES:
        for entry in (folder() / part).glob("*"):
            with suppress(OSError):  # gone meanwhile
                found.append((entry.stat().st_mtime, _bytes_of(entry), entry))
    return sorted(found)


def trim() -> None:
    """Remove what was used longest ago, until the rest is as small as it may be.

    An entry leaves by one rename, as it came: none is seen half. What a process that was killed
    left there, here or in `staging`, goes like an entry.
    """
    limit, gone, count = limit_bytes(), 0, 0
    place = folder() / _ENTRIES[0]
    place.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as removed,
        _alone(),
    ):
        entries = _entries()
        total = sum(size for _, size, _ in entries)
        for used, size, entry in entries:
            if total - gone <= limit or used > time.time() - _IN_USE_SECONDS:
                break
            entry.rename(Path(removed) / str(count))
            gone, count = gone + size, count + 1
    if count:
        _LOG.info("removed %d entries of the cache %s, %.1f MB", count, folder(), gone / 1e6)


@contextmanager
def staging(entry: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `entry` by one rename: no half entry is seen, nor left."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=entry.parent, ignore_cleanup_errors=True) as name:
        yield Path(name)
        with suppress(OSError):  # another export made it first
            Path(name).rename(entry)
    with suppress(OSError):  # it may be larger for once
        trim()


def find(key: str) -> Compiled | None:
    """None, too, for an entry that is damaged, which is removed."""
    limit_bytes()  # refused before anything is compiled
    entry = folder() / "compiled" / key
    if not use(entry):
        return None
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

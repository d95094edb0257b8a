"""Which symbols compiled code needs that the lean host does not have."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from .. import native
from .errors import ExportError

# Libraries every Linux process may take for granted (the manylinux policy's core), plus OpenMP.
_SYSTEM = (
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libm.so.6",
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libgomp.so.1",
)


def _nm(arguments: list[str], path: str) -> set[str]:
    command = ["nm", "--dynamic", "--format=just-symbols", *arguments, path]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ExportError(f"cannot list the symbols of {path}; install binutils") from error
    return {line.partition("@")[0] for line in found.stdout.split()}


def _library_path(soname: str) -> str:
    found = subprocess.run(
        ["g++", f"-print-file-name={soname}"], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def defined(shared_object: Path) -> set[str]:
    """Symbols that a library offers."""
    return _nm(["--defined-only"], str(shared_object))


def missing(shared_object: Path, *others: Path, also: Iterable[str] = ()) -> list[str]:
    """Symbols the object needs that neither the lean host, nor the system's libraries, nor `others`
    define, and that are not among `also`."""
    undefined = _nm(["--undefined-only"], str(shared_object))
    weak = _nm_weak(shared_object)
    return sorted(undefined - weak - offered().union(also, *map(defined, others)))


@cache
def offered() -> frozenset[str]:
    """Symbols that the lean host and the system's libraries define: the answers of a dozen
    processes, which one may ask for ahead."""
    with ThreadPoolExecutor() as pool:
        system = pool.map(lambda soname: _nm(["--defined-only"], _library_path(soname)), _SYSTEM)
        return frozenset(defined(native.find("libingot_host.so.1"))).union(*system)


def _nm_weak(shared_object: Path) -> set[str]:
    """Weak undefined symbols (`w`), which may stay unresolved."""
    found = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", str(shared_object)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = (line.split() for line in found.stdout.splitlines())
    return {row[-1].partition("@")[0] for row in rows if row[0] in "wv"}

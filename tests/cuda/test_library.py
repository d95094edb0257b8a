"""libingot_ops_cuda.so.1 as nvcc made it: its exports, what it needs, and for which GPUs it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ingot import native
from ingot.custom_ops.declare import OPS


def path() -> str:
    try:
        return str(native.find("libingot_ops_cuda.so.1"))
    except FileNotFoundError:
        pytest.skip("libingot_ops_cuda is not built: there is no nvcc")


def readelf(*options: str) -> str:
    return subprocess.run(
        ["readelf", "--wide", *options, path()], check=True, capture_output=True, text=True
    ).stdout


def test_it_exports_an_entry_for_every_op_and_nothing_else() -> None:
    rows = [line.split() for line in readelf("--dyn-syms").splitlines()]
    exported = {row[7].split("@")[0] for row in rows if len(row) == 8 and row[6].isdigit()}
    others = {f"ingot_cuda_ops_{name}" for name in ("last_error", "ran_out", "version")}
    assert exported == {f"ingot_cuda_op_{name}" for name in OPS} | others


def test_it_needs_neither_torch_nor_a_toolkit() -> None:
    """cudart is inside; the driver is opened by it when it is first used."""
    needed = [line.split("[")[1][:-1] for line in readelf("-d").splitlines() if "(NEEDED)" in line]
    system = ("libc.", "libm.", "libstdc++.", "libgcc_s.", "libdl.", "librt.", "libpthread.", "ld-")
    assert [name for name in needed if not name.startswith(system)] == []


def test_it_has_code_for_each_architecture() -> None:
    """nvcc's fat binaries lie in a section of their own; each cubin names what it is for."""
    assert ".nv_fatbin" in readelf("-S")
    text = Path(path()).read_bytes()
    for architecture in (b"sm_80", b"sm_90a"):
        assert architecture in text

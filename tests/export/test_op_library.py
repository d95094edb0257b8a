"""Libraries of the user's own ops: their names reach the linker, so they must be plain."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ingot.export import ExportError
from ingot.export.op_library import read_library


def build(path: Path, soname: str) -> None:
    command = ["gcc", "-shared", "-o", str(path.absolute()), "-xc", "/dev/null"]
    subprocess.run([*command, f"-Wl,-soname={soname}"], check=True)


def test_a_path_that_looks_like_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build(Path("--help"), "libmine-2.so.1")
    found = read_library(Path("--help"))
    assert (found.path, found.soname) == (tmp_path / "--help", "libmine-2.so.1")


@pytest.mark.parametrize("soname", ["x.so -fplugin=evil.so", "-x.so", "a/b.so", "x.so;id", "x\ny"])
def test_names_that_are_more_than_a_name(tmp_path: Path, soname: str) -> None:
    build(tmp_path / "x.so", soname)
    with pytest.raises(ExportError, match="is no shared library with a soname"):
        read_library(tmp_path / "x.so")

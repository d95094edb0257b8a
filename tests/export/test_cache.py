"""The cache of compiled graphs: one user's own, and an entry is what was put there or is gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingot.export import ExportError, cache
from ingot.export.cache import Compiled


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("INGOT_CACHE_DIR", str(path))
    return path


def published(folder: Path) -> Path:
    code = folder.parent / "model.so"
    code.write_bytes(b"\x7fELF code")
    made = cache.publish("key", Compiled(code, ("a",), ("linear",), {"nodes": 1}), [])
    assert cache.find("key") == made
    return made.shared_object


def test_for_one_user_alone(folder: Path) -> None:
    assert cache.folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert published(folder).parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_others_may_write(folder: Path, mode: int) -> None:
    cache.folder().chmod(mode)
    with pytest.raises(ExportError, match="others may write to the cache .*; chmod go-w it"):
        cache.find("key")


def test_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.folder()
    if os.geteuid() == 0:
        os.chown(folder, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ExportError, match="others may write to the cache"):
        cache.folder()


def test_no_place_for_it(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(ExportError, match=r"no cache in .* \(File exists\); set INGOT_CACHE_DIR"):
        cache.folder()


def test_an_empty_variable_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGOT_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    assert cache.folder() == folder / "ingot"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(folder))
    assert cache.folder() == folder / ".cache" / "ingot"


@pytest.mark.parametrize("name", ["model.so", "entry.json"])
def test_a_damaged_entry_is_gone(folder: Path, name: str) -> None:
    file = published(folder).with_name(name)
    file.write_bytes(file.read_bytes()[:-1])
    assert cache.find("key") is None
    assert not file.parent.exists()
    published(folder)

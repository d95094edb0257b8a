"""The cache of compiled graphs: one user's own, and an entry is what was put there or is gone."""

from __future__ import annotations

import logging
import os
import threading
import time
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


def kept(entry: Path, megabytes: float, hours_ago: float) -> Path:
    """An entry of this size that was used last so long ago."""
    cache.folder()
    entry.mkdir(parents=True)
    (entry / "content").write_bytes(bytes(int(megabytes * 1e6)))
    used = time.time() - 3600 * hours_ago
    os.utime(entry, (used, used))
    return entry


def test_what_was_used_longest_ago_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("INGOT_CACHE_GB", "0.0025")
    oldest = kept(folder / "cpp" / "a", 1, hours_ago=4)
    old = kept(folder / "compiled" / "b", 1, hours_ago=3)
    newer = kept(folder / "cuda" / "c", 1, hours_ago=2)
    other = kept(folder / "inductor" / "d", 9, hours_ago=9)  # is not ours to count
    assert cache.use(oldest)
    with caplog.at_level(logging.INFO):
        cache.trim()
    assert [entry.exists() for entry in (oldest, old, newer, other)] == [True, False, True, True]
    assert caplog.messages == [f"removed 1 entries of the cache {folder}, 1.0 MB"]
    cache.trim()
    assert oldest.exists()
    assert newer.exists()
    assert list((folder / "compiled").iterdir()) == []


def test_what_may_be_in_use_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGOT_CACHE_GB", "0")
    entry = published(folder).parent
    assert entry.exists()
    os.utime(entry, (0, 0))
    assert cache.find("key") is not None  # which uses it
    cache.trim()
    assert entry.exists()
    os.utime(entry, (0, 0))
    cache.trim()
    assert not entry.exists()
    assert not cache.use(entry)
    assert cache.find("key") is None


def test_a_new_entry_makes_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = kept(folder / "cpp" / "a", 1, hours_ago=4)
    published(folder)
    assert old.exists()  # far below what is allowed by itself
    monkeypatch.setenv("INGOT_CACHE_GB", "0.0005")
    (folder / "compiled" / "key").rename(folder / "compiled" / "another")
    published(folder)
    assert not old.exists()


def test_what_a_killed_export_left_goes_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGOT_CACHE_GB", "0")
    left = kept(folder / "cpp" / "tmp1234", 1, hours_ago=2)
    cache.trim()
    assert not left.exists()


@pytest.mark.parametrize("size", ["large", "-1", "nan"])
def test_a_size_that_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("INGOT_CACHE_GB", size)
    with pytest.raises(ExportError, match=f'INGOT_CACHE_GB is "{size}"; give gigabytes'):
        cache.find("key")


def test_an_entry_in_use_is_never_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a use and a removal meet: who is told that it is there finds it there."""
    monkeypatch.setenv("INGOT_CACHE_GB", "0")
    done = threading.Event()

    def remove() -> None:
        while not done.is_set():
            cache.trim()

    removing = [threading.Thread(target=remove) for _ in range(2)]
    for thread in removing:
        thread.start()
    told = 0
    try:
        for index in range(200):
            entry = kept(folder / "cpp" / str(index), 0.001, hours_ago=2)
            if cache.use(entry):
                told += 1
                time.sleep(0.002)
                assert (entry / "content").exists()
    finally:
        done.set()
        for thread in removing:
            thread.join()
    assert told > 0

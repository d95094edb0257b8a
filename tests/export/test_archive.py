"""The archive is a plain zip whose data are aligned; a failed export leaves nothing behind."""

import hashlib
import os
import threading
import zipfile
from pathlib import Path

import pytest

import ingot
from ingot.export.archive import ALIGNMENT, ArchiveWriter, HugePageFile


def data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = file.read(2), file.read(2)
    return (
        info.header_offset + 30 + int.from_bytes(name, "little") + int.from_bytes(extra, "little")
    )


def test_entries_are_stored_aligned_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    contents = {
        f"ingot/entry{size}": bytes(range(256))[:size] * 3 for size in (0, 1, 63, 64, 65, 200)
    }
    with ArchiveWriter(path) as archive:
        for name, data in contents.items():
            archive.add(name, data)
    with zipfile.ZipFile(path) as archive_file:
        assert archive_file.testzip() is None
        assert archive_file.read("model/archive_format") == b"pt2"
        for name, data in contents.items():
            info = archive_file.getinfo(f"model/{name}")
            assert info.compress_type == zipfile.ZIP_STORED
            offset = data_offset(path, info)
            assert offset % ALIGNMENT == 0
            assert path.read_bytes()[offset : offset + len(data)] == data
            expected = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            assert archive.entries[name] == expected


def test_streamed_chunks_are_one_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    with ArchiveWriter(path) as archive:
        archive.add("ingot/weights.bin", (bytes([i]) * 1000 for i in range(5)))
    with zipfile.ZipFile(path) as archive_file:
        expected = b"".join(bytes([i]) * 1000 for i in range(5))
        assert archive_file.read("model/ingot/weights.bin") == expected


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with ArchiveWriter(tmp_path / name) as archive:
            archive.add("ingot/x", b"payload")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_that_grows_by_huge_pages_ends_where_its_data_do(tmp_path: Path) -> None:
    path, data = tmp_path / "a", bytes(range(256)) * 10000
    with HugePageFile(path) as file:
        file.write(data)
        assert path.stat().st_size == 4 << 20
        file.seek(10)
        file.write(b"later")
        assert path.stat().st_size == 4 << 20
    assert path.read_bytes() == data[:10] + b"later" + data[15:]


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(b"old")

    def fail() -> None:
        with ArchiveWriter(path) as archive:
            archive.add("ingot/x", b"payload")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_writes_through_no_link(tmp_path: Path) -> None:
    """Whoever may write to the folder could put one where the partial file will be."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    output = tmp_path / "model.pt2"
    (tmp_path / f".model.pt2.{os.getpid()}-{threading.get_ident()}.partial").symlink_to(victim)
    with ArchiveWriter(output) as archive:
        archive.add("ingot/a", b"a")
    assert zipfile.is_zipfile(output)
    assert not output.is_symlink()
    assert victim.read_text() == "kept"


def test_the_runtime_reads_what_zipfile_writes_beyond_2_gib(
    demo_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From there on it adds zip64 records, though the plain ones could still hold all."""
    path = tmp_path / "large.pt2"
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1 << 10)
    with zipfile.ZipFile(demo_package) as theirs, ArchiveWriter(path) as archive:
        for name in theirs.namelist():
            if name.startswith("model/ingot/"):
                add = archive.add_last if name.endswith("manifest.json") else archive.add
                add(name.removeprefix("model/"), theirs.read(name))
    assert b"PK\x06\x07" in path.read_bytes()[-1 << 10 :]  # the locator of a zip64 record
    assert ingot.load(path).manifest == ingot.load(demo_package).manifest

"""`ingot verify`: what is signed is what is there, all of it, or it is refused."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingot.export.archive import ArchiveWriter
from ingot.runtime import BadPackage
from ingot.runtime.sign_command import sign
from tests.signing.packages import ENTRIES, Keys, check, verified, with_entry, write_package


def test_every_byte_counts(keys: Keys, tmp_path: Path) -> None:
    package = write_package(tmp_path / "model.pt2", {"ingot/weights.bin": b"w"})
    sign(package, package, keys.private, "a comment")
    data = package.read_bytes()
    with package.open("r+b", buffering=0) as file:
        for at in range(len(data)):
            os.pwrite(file.fileno(), bytes([data[at] ^ 1 << at % 8]), at)
            with pytest.raises(BadPackage):
                check(package, keys.public)
            os.pwrite(file.fileno(), data[at : at + 1], at)
    check(package, keys.public)


def test_cut_short_anywhere(keys: Keys, tmp_path: Path) -> None:
    package = write_package(tmp_path / "model.pt2", {"ingot/weights.bin": b"w"})
    sign(package, package, keys.private)
    for size in reversed(range(package.stat().st_size)):
        os.truncate(package, size)
        with pytest.raises(BadPackage):
            verified(package)


def edited(edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(edit(path.read_bytes()))

    return change


def _gap(data: bytes) -> bytes:
    """64 bytes that no entry has, before the directory."""
    (start,) = struct.unpack("<I", data[-6:-2])
    moved = struct.pack("<I", start + 64)
    return data[:start] + bytes(64) + data[start:-6] + moved + data[-2:]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_entry("model/ingot/extra.txt"), "does not list: ingot/extra.txt"),
        (with_entry("model/../x"), r"an entry is named 'model/../x'"),
        (with_entry("model//x"), "an entry is named"),
        (with_entry("model/a\nb"), "an entry is named"),
        (with_entry("other/ingot/weights.bin"), "an entry is named"),
        (with_entry("model/x", external_attr=0o120777 << 16), "what export does not write"),
        (with_entry("model/x", b"x" * 100, compress_type=zipfile.ZIP_DEFLATED), "is compressed"),
        (with_entry("model/x", comment=b"c"), "what export does not write"),
        (with_entry("model/x", extra=b"\1\2\0\0"), "an extra field that export does not write"),
        (edited(lambda data: data + b"x"), "something follows its directory"),
        (edited(lambda data: data[:-2] + b"\1\0x"), "something follows its directory"),
        (edited(lambda data: b"#!" + data), "is not an Ingot package"),
        (edited(lambda data: data[:1] + data), "is not an Ingot package"),
        (edited(_gap), "belong to no entry"),
        (edited(lambda data: b""), "is not an Ingot package"),
    ],
)
def test_one_reading_only(package: Path, change: Callable[[Path], None], sentence: str) -> None:
    change(package)
    with pytest.raises(BadPackage, match=sentence):
        verified(package)


@pytest.mark.parametrize(("version", "is_read"), [(45, True), (20, True), (10, False), (63, False)])
def test_the_version_of_a_local_header(package: Path, version: int, is_read: bool) -> None:
    """That of the directory's record, or where only the record needs zip64, the one without."""
    entry = verified(package).archive.entries["ingot/manifest.json"]
    record = entry.record[:4] + struct.pack("<2H", 3 << 8 | 45, 45) + entry.record[8:]
    data = package.read_bytes().replace(entry.record, record)
    at = entry.offset + 4
    package.write_bytes(data[:at] + struct.pack("<H", version) + data[at + 2 :])
    if is_read:
        verified(package)
        return
    with pytest.raises(BadPackage, match=r"the header of ingot/manifest.json differs"):
        verified(package)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_twice(package: Path) -> None:
    with_entry("model/ingot/weights.bin", b"other weights")(package)
    with pytest.raises(BadPackage, match=r"ingot/weights.bin is there twice"):
        verified(package)


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        ({name: {"bytes": 1, "sha256": ""} for name in ENTRIES}, "was changed: ingot/"),
        ({"ingot/none": {"bytes": 1, "sha256": ""}}, "has no entry ingot/none"),
        ({"ingot/manifest.json": {"bytes": 1, "sha256": ""}}, "it lists ingot/manifest.json"),
        ({"ingot/weights.bin": {}}, "cannot be read"),
        ([], "cannot be read"),
    ],
)
def test_manifests_that_lie(tmp_path: Path, stated: Any, sentence: str) -> None:
    path = write_package(tmp_path / "model.pt2", stated=stated)
    with pytest.raises(BadPackage, match=sentence):
        verified(path)


def test_a_manifest_that_says_two_things(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with ArchiveWriter(path) as archive:
        archive.add_last("ingot/manifest.json", b'{"entries": {}, "entries": {}}')
    with pytest.raises(BadPackage, match="a name is there twice"):
        verified(path)


def test_a_signature_fits_no_other_package(package: Path, keys: Keys, tmp_path: Path) -> None:
    sign(package, package, keys.private)
    with zipfile.ZipFile(package) as archive:
        signature = archive.read("model/ingot/signature.json")
    entries = {**ENTRIES, "ingot/weights.bin": b"other weights, hashed in their manifest"}
    other = write_package(tmp_path / "other.pt2", entries)
    with_entry("model/ingot/signature.json", signature)(other)
    assert verified(other).signatures
    with pytest.raises(BadPackage, match=r"was changed after the key \w+ signed it"):
        check(other, keys.public)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"version": 1, "signatures": [{}]}',
        b'{"version": 2}',
        b'{"version": 1, "signatures": [{"algorithm": "ed25519", "key_id": "a",'
        b' "comment": "\\u001b", "signature": ""}]}',
        b"[" * 100_000,
    ],
)
def test_no_list_of_signatures(package: Path, data: bytes) -> None:
    with_entry("model/ingot/signature.json", data)(package)
    with pytest.raises(BadPackage, match="signatures"):
        verified(package)

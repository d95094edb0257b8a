"""A package's bytes as verification reads them: every byte of the file has its one place.

What runs packages finds entries by the directory at the file's end and passes over the rest
(csrc/archive.cpp, PyTorch, any zip tool). A file that two readers could understand differently is
refused here: bytes before, between and after the entries, names twice, a header that says other
than the directory. The zip format is PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7 (local header),
4.3.12 (central directory), 4.3.14 to 4.3.16 (end records) and 4.5.3 (zip64 field).
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from .errors import BadPackage

TOP = "model/"  # the archive's one folder
ALIGNMENT = 64

# After the signature. Local: version, flags, method, time, date, CRC-32, stored, size, name length,
# extra length. Central: version made by, the same, comment length, disk, internal and external
# attributes, offset of the local header.
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<4sIQI")
_IS_LOCAL, _IS_CENTRAL, _IS_END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_IS_END64, _IS_LOCATOR64 = b"PK\6\6", b"PK\6\7"
_ZIP64, _PADDING = 1, 0x4246  # extra fields; the second is what PyTorch aligns with
_IN_ZIP64 = 0xFFFFFFFF
_UTF8 = 0x800
_UNIX = 3 << 8  # made by
_VERSION = 45  # of the format: that has zip64
# Of the format without, which Python's zipfile before 3.11.4 wrote in the local header of a small
# entry behind 4 GiB, though the directory's record has zip64 for the offset.
_SMALL_VERSION = 20
_FILE = 0o644 << 16  # external attributes: a plain file, no link, not setuid
_MOST_DIRECTORY = 1 << 28  # bytes
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Entry:
    """name: without the top folder. offset: of its header; start: of its data. record: its part of
    the directory."""

    name: str
    size: int
    crc: int
    offset: int
    start: int
    record: bytes


class Archive:
    """An open file, its structure checked. `entries` come in the order in which they lie."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        """Raises BadPackage for anything that is not as export writes it."""
        self._file, self.path = file, path
        self._size = os.fstat(file.fileno()).st_size
        self.directory, entries = self._read_directory()
        self.entries = {entry.name: entry for entry in entries}

    def read(self, name: str, most: int) -> bytes:
        """A small entry. Raises BadPackage if it is not there or has more bytes than `most`."""
        if name not in self.entries:
            raise BadPackage(f"{self.path} is not an Ingot package: it has no entry {name}")
        entry = self.entries[name]
        if entry.size > most:
            self._refuse(f"{name} has {entry.size} bytes")
        return self._at(entry.start, entry.size)

    def sha256(self, name: str) -> str:
        """Of an entry's bytes, which are never in memory together. Raises BadPackage where they
        have another CRC-32 than the headers state."""
        entry, digest, crc = self.entries[name], hashlib.sha256(), 0
        buffer = memoryview(bytearray(min(_CHUNK, entry.size)))
        self._file.seek(entry.start)
        left = entry.size
        while left:
            part = buffer[: min(left, len(buffer))]
            read = self._file.readinto(part)  # type: ignore[attr-defined]
            if not read:
                self._refuse("it became shorter while it was read")
            digest.update(part[:read])
            crc = zlib.crc32(part[:read], crc)
            left -= read
        if crc != entry.crc:
            self._refuse(f"the CRC-32 of {name} is not that of its header")
        return digest.hexdigest()

    def _refuse(self, what: str) -> NoReturn:
        raise BadPackage(f"{self.path} is damaged or was changed: {what}; copy or export it again")

    def _at(self, offset: int, size: int) -> bytes:
        if offset < 0 or offset + size > self._size:
            self._refuse("an entry reaches beyond the end of the file")
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            self._refuse("it became shorter while it was read")
        return data

    def _read_directory(self) -> tuple[int, list[Entry]]:
        """Where the directory begins, and the entries by offset."""
        start, size, count = self._find_directory()
        if size > _MOST_DIRECTORY:
            self._refuse(f"its directory has {size} bytes")
        data, at = self._at(start, size), 0
        entries: dict[str, Entry] = {}
        for _ in range(count):
            entry = self._entry(data, at)
            if entries.setdefault(entry.name, entry) is not entry:
                self._refuse(f"{entry.name} is there twice")
            at += len(entry.record)
        if at != size:
            self._refuse("its directory has more bytes than its entries take")
        ordered = sorted(entries.values(), key=lambda entry: entry.offset)
        end = 0
        for entry in ordered:
            if entry.offset != end:
                self._refuse(f"bytes {min(end, entry.offset)} to {max(end, entry.offset)} belong to"
                             " no entry, or to two")  # fmt: skip
            end = entry.start + entry.size
        if end != start:
            self._refuse(f"bytes {min(end, start)} to {max(end, start)} belong to no entry")
        return start, ordered

    def _find_directory(self) -> tuple[int, int, int]:
        """Offset, bytes and number of entries; everything behind it is accounted for."""
        end = self._size - _END.size
        if end < 0 or self._at(0, 4) != _IS_LOCAL:
            raise BadPackage(f"{self.path} is not an Ingot package; make one with 'ingot export'")
        magic, disk, other_disk, here, count, size, start, comment = _END.unpack(
            self._at(end, _END.size)
        )
        if magic != _IS_END or comment:
            self._refuse("something follows its directory, or it is cut short")
        parts = (disk, other_disk, here - count)
        locator = self._at(end - _LOCATOR64.size, _LOCATOR64.size)
        if locator.startswith(_IS_LOCATOR64):
            end -= _LOCATOR64.size + _END64.size
            _, disk, offset, disks = _LOCATOR64.unpack(locator)
            record = _END64.unpack(self._at(end, _END64.size))
            magic, length, made, needed, *parts_64, here_64, count_64, size_64, start_64 = record
            parts = (*parts, disk, disks - 1, *parts_64, here_64 - count_64)
            kind = (magic, length, made, needed)
            if offset != end or kind != (_IS_END64, _END64.size - 12, _VERSION, _VERSION):
                self._refuse("its zip64 directory is missing")
            stated = ((count, count_64, 0xFFFF), (size, size_64, _IN_ZIP64),
                      (start, start_64, _IN_ZIP64))  # fmt: skip
            if any(small not in (large, marker) for small, large, marker in stated):
                self._refuse("its end records differ")
            count, size, start = count_64, size_64, start_64
        if any(parts):
            self._refuse("it claims to be one of several parts")
        if start + size != end:
            self._refuse("its directory is not where it says")
        return start, size, count

    def _entry(self, data: bytes, at: int) -> Entry:
        """The entry whose record begins at data[at]; its local header must say the same."""
        if len(data) - at < _CENTRAL.size:
            self._refuse("its directory is cut short")
        values = _CENTRAL.unpack_from(data, at)
        magic, made_by, *shared, name_bytes, extra_bytes, comment, disk, text, mode, offset = values
        version, flags, method, _, _, crc, stored, size = shared
        name_at = at + _CENTRAL.size
        end = name_at + name_bytes + extra_bytes
        if magic != _IS_CENTRAL or end > len(data):
            self._refuse("its directory is broken")
        raw_name = data[name_at : name_at + name_bytes]
        name = self._name(raw_name, flags)
        extra = self._extra(data[end - extra_bytes : end], name)
        size, stored, offset = self._zip64(extra, (size, stored, offset), name)
        plain = made_by == _UNIX | version and mode == _FILE and not flags & ~_UTF8
        if comment or disk or text or not plain:
            self._refuse(f"the directory says of {name} what export does not write")
        if method or size != stored:
            self._refuse(f"{name} is compressed")

        local = _LOCAL.unpack(self._at(offset, _LOCAL.size))
        header = offset + _LOCAL.size
        extra = self._extra(self._at(header + local[-2], local[-1]), name)
        sizes = self._zip64(extra, (local[8], local[7]), name)
        same = local[2:7] == (*shared[1:5], crc) and sizes == (size, stored)
        same &= local[1] in (version, _SMALL_VERSION)
        if local[0] != _IS_LOCAL or not same or self._at(header, local[-2]) != raw_name:
            self._refuse(f"the header of {name} differs from the directory")
        start = header + local[-2] + local[-1]
        return Entry(name, size, crc, offset, start, data[at:end])

    def _name(self, raw: bytes, flags: int) -> str:
        try:
            name = raw.decode("utf-8" if flags & _UTF8 else "ascii")
        except UnicodeDecodeError:
            self._refuse(f"an entry is named {raw!r}")
        parts = name.split("/")
        plain = name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)
        if not plain or not name.startswith(TOP):
            self._refuse(f"an entry is named {name!r}")
        return name.removeprefix(TOP)

    def _extra(self, data: bytes, name: str) -> bytes:
        """The zip64 field's bytes. Only padding may be beside it."""
        found: dict[int, bytes] = {}
        while data:
            if len(data) < 4:
                self._refuse(f"an extra field of {name} is cut short")
            kind, size = struct.unpack_from("<HH", data)
            if kind in found or kind not in (_ZIP64, _PADDING) or len(data) < 4 + size:
                self._refuse(f"{name} has an extra field that export does not write")
            found[kind], data = data[4 : 4 + size], data[4 + size :]
        if any(found.get(_PADDING, b"")):
            self._refuse(f"the padding of {name} is not zero")
        return found.get(_ZIP64, b"")

    def _zip64(self, field: bytes, values: tuple[int, ...], name: str) -> tuple[int, ...]:
        """`values`, with those from the zip64 field that are marked as being there."""
        if len(values) == 2 and field == struct.pack("<2Q", *values):
            return values  # both there and here, as Python's zipfile wrote headers before 3.11.4
        if len(field) != 8 * values.count(_IN_ZIP64):
            self._refuse(f"the zip64 field of {name} does not fit")
        large = iter(struct.unpack(f"<{len(field) // 8}Q", field))
        return tuple(next(large) if value == _IN_ZIP64 else value for value in values)


def tail_with(archive: Archive, name: str, data: bytes) -> tuple[int, bytes]:
    """What makes `archive` one with the entry `name`: at which offset of the file to put which
    bytes, as its new end.

    If the archive has such an entry, it is replaced. Raises BadPackage if that is not the last one.
    """
    others = [entry for entry in archive.entries.values() if entry.name != name]
    start = archive.entries[name].offset if name in archive.entries else archive.directory
    if any(entry.offset > start for entry in others):
        raise BadPackage(f"{archive.path} has other entries behind {name}; export it again")
    full, crc = (TOP + name).encode("ascii"), zlib.crc32(data)
    padding = -(start + _LOCAL.size + len(full) + 4) % ALIGNMENT
    extra = struct.pack("<HH", _PADDING, padding) + bytes(padding)
    epoch = (0, 1 << 5 | 1)  # 1980-01-01, as all entries: no clock in the file
    shared = (_VERSION, 0, 0, *epoch, crc, len(data), len(data), len(full))
    entry = _LOCAL.pack(_IS_LOCAL, *shared, len(extra)) + full + extra + data
    far = struct.pack("<HHQ", _ZIP64, 8, start) if start >= _IN_ZIP64 else b""
    offset = min(start, _IN_ZIP64)
    there = (len(far), 0, 0, 0, _FILE, offset)
    record = _CENTRAL.pack(_IS_CENTRAL, _UNIX | _VERSION, *shared, *there)
    records = [*(entry.record for entry in others), record + full + far]
    return start, entry + _directory(records, start + len(entry))


def _directory(records: Iterable[bytes], start: int) -> bytes:
    """The directory and its end records, for a file in which it begins at `start`."""
    parts = list(records)
    data, count = b"".join(parts), len(parts)
    end = start + len(data)
    if start >= _IN_ZIP64 or count >= 0xFFFF:
        facts = (_VERSION, _VERSION, 0, 0, count, count, end - start, start)
        data += _END64.pack(_IS_END64, _END64.size - 12, *facts)
        data += _LOCATOR64.pack(_IS_LOCATOR64, 0, end, 1)
    small = min(count, 0xFFFF)
    return data + _END.pack(_IS_END, 0, 0, small, small, end - start, min(start, _IN_ZIP64), 0)

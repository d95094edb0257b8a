"""Write a PT2 archive: a zip of stored entries whose data begin at multiples of 64 bytes.

Stored and aligned, every entry can be used in place from a memory mapping. The alignment is made by
a private extra field in the local header, as PyTorch's own writer does. docs/format.md specifies
what is inside.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

ALIGNMENT = 64
TOP = "model"  # the archive's one top folder
_PADDING_FIELD = 0x4246  # "FB": the extra field that PyTorch pads with
_LOCAL_HEADER = 30
_ZIP64_FIELD = 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # no clock in the file: the same input gives the same bytes


class ArchiveWriter:
    """Writes beside `path` and puts the file there only when all went well.

    A link stays one: what it points to is replaced.

    Entries may be streamed, so a weight store never has to fit in memory. `entries` maps each name
    to its size and SHA-256, for the manifest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.entries: dict[str, dict[str, object]] = {}
        unique = f"{os.getpid()}-{threading.get_ident()}"  # several may write to one path at once
        self._partial = self.path.with_name(f".{path.name}.{unique}.partial")

    def __enter__(self) -> ArchiveWriter:
        try:
            self._partial.unlink(missing_ok=True)  # of a process that was killed
            # "x": through no link that someone else put there.
            self._zip = zipfile.ZipFile(self._partial, "x", zipfile.ZIP_STORED, allowZip64=True)
            self._add("archive_format", [b"pt2"])
            self._add("byteorder", [b"little"])
        except BaseException:
            self._partial.unlink(missing_ok=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._zip.close()
                self._partial.replace(self.path)
        finally:
            self._discard()

    def _discard(self) -> None:
        """Of a file that failed nothing more is written, which might fail again."""
        file, self._zip.fp = self._zip.fp, None
        self._partial.unlink(missing_ok=True)
        if file is not None:
            with contextlib.suppress(OSError):  # what is still in its buffer
                file.close()

    def add(self, name: str, chunks: Iterable[bytes | memoryview] | bytes) -> None:
        """Write one entry and note its size and hash."""
        size, digest = self._add(name, [chunks] if isinstance(chunks, bytes) else chunks)
        self.entries[name] = {"bytes": size, "sha256": digest}

    def add_last(self, name: str, data: bytes) -> None:
        """Write the manifest, which lists every entry but itself."""
        self._add(name, [data])

    def _add(self, name: str, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
        info = zipfile.ZipInfo(f"{TOP}/{name}", _EPOCH)
        info.external_attr = 0o644 << 16
        assert self._zip.fp is not None
        start = self._zip.fp.tell() + _LOCAL_HEADER + len(info.filename) + _ZIP64_FIELD
        padding = -(start + 4) % ALIGNMENT
        info.extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
        size, digest = 0, hashlib.sha256()
        with (
            self._zip.open(info, "w", force_zip64=True) as entry,
            ThreadPoolExecutor(1) as beside,  # hashing takes as long as writing
        ):
            for chunk in chunks:
                hashed = beside.submit(digest.update, chunk)
                entry.write(chunk)
                hashed.result()
                size += len(chunk)
        return size, digest.hexdigest()

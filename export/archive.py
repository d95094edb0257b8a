"""Write a PT2 archive: a zip of stored entries whose data begin at multiples of 64 bytes.

Stored and aligned, every entry can be used in place from a memory mapping. The alignment is made by
a private extra field in the local header, as PyTorch's own writer does. docs/format.md specifies
what is inside.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import os
import struct
import threading
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .errors import ExportError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ALIGNMENT = 64
TOP = "model"  # the archive's one top folder
_PADDING_FIELD = 0x4246  # "FB": the extra field that PyTorch pads with
SMALL = 1 << 16  # bytes: what is not worth a mapping of its own
_LOCAL_HEADER = 30
_ZIP64_FIELD = 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # no clock in the file: the same input gives the same bytes
_HUGE_PAGE = 2 << 20


class HugePageFile(io.FileIO):
    """A new file that grows by huge pages of zeros, which what is written then fills.

    Linux keeps a file in memory in pages as large as the writes it came by, in file systems that
    can (XFS, ext4): of 2 MiB, a process maps it with one page fault for 32 of otherwise.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+")  # x: through no link that someone else put there
        self._size = self._grown = 0

    def write(self, data: ReadableBuffer, /) -> int:
        self._size = max(self._size, self.tell() + memoryview(data).nbytes)
        while self._grown < self._size:
            self._grown += os.pwrite(self.fileno(), bytes(_HUGE_PAGE), self._grown)
        return super().write(data)

    def close(self) -> None:
        if not self.closed:
            self.truncate(self._size)
        super().close()


class ArchiveWriter:
    """Writes beside `path` and puts the file there only when all went well.

    A link stays one: what it points to is replaced. Entries may be streamed, so a weight store
    never has to fit in memory, and are hashed by a thread beside. Raises ExportError where the file
    cannot be written; nothing is left then.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._given = path.resolve(), path
        unique = f"{os.getpid()}-{threading.get_ident()}"  # several may write to one path at once
        self._partial = self.path.with_name(f".{path.name}.{unique}.partial")
        self._beside = ThreadPoolExecutor(1)
        self._listed: list[Entry] = []
        self._open: Entry | None = None

    def __enter__(self) -> ArchiveWriter:
        try:
            with self._writing():
                self._partial.unlink(missing_ok=True)  # of a process that was killed
                self._file = io.BufferedWriter(HugePageFile(self._partial))
                self._zip = zipfile.ZipFile(self._file, "x", zipfile.ZIP_STORED, allowZip64=True)
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
                self.finish()
        finally:
            self._discard()

    def finish(self) -> None:
        """The file is whole: it takes its place."""
        if self._zip.fp is not None:
            self._beside.shutdown()
            with self._writing():
                self._zip.close()
                self._file.close()
                self._partial.replace(self.path)

    def _discard(self) -> None:
        """Of a file that failed nothing more is written, which might fail again."""
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open.file.close()
        self._zip.fp = None
        self._partial.unlink(missing_ok=True)
        self._beside.shutdown(cancel_futures=True)
        with contextlib.suppress(OSError):  # what is still in its buffer
            self._file.close()

    @property
    def entries(self) -> dict[str, dict[str, object]]:
        """Of each entry that ended its size and SHA-256, for the manifest."""
        return {e.name: {"bytes": e.size, "sha256": e.sha256()} for e in self._listed}

    def add(self, name: str, chunks: Iterable[bytes | memoryview] | bytes) -> None:
        """Write one entry, which the manifest lists."""
        self._listed.append(self._add(name, [chunks] if isinstance(chunks, bytes) else chunks))

    def add_last(self, name: str, data: bytes) -> None:
        """Write the manifest, which lists every entry but itself."""
        self._add(name, [data])

    def begin(self, name: str) -> Entry:
        """An entry that grows until it is ended; no other is written meanwhile."""
        entry = self._begin(name)
        self._listed.append(entry)
        return entry

    def _add(self, name: str, chunks: Iterable[bytes | memoryview]) -> Entry:
        entry = self._begin(name)
        for chunk in chunks:
            entry.write(chunk)
        entry.end()
        return entry

    def _begin(self, name: str) -> Entry:
        info = zipfile.ZipInfo(f"{TOP}/{name}", _EPOCH)
        info.external_attr = 0o644 << 16
        start = self._file.tell() + _LOCAL_HEADER + len(info.filename) + _ZIP64_FIELD
        padding = -(start + 4) % ALIGNMENT
        info.extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
        with self._writing():
            self._open = Entry(self, name, info)
        return self._open

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ExportError(
                f"cannot write {self._given}: {error.strerror}; nothing was left there"
            ) from error


class Entry:
    """An entry of an archive that is being written. What it holds can be used already."""

    def __init__(self, archive: ArchiveWriter, name: str, info: zipfile.ZipInfo) -> None:
        self.name, self.size = name, 0
        self._archive = archive
        self.file = archive._zip.open(info, "w", force_zip64=True)
        self._start = archive._file.tell()
        self._digest, self._hashed = hashlib.sha256(), Future[None]()
        self._hashed.set_result(None)

    def write(self, data: bytes | memoryview) -> None:
        """Raises ExportError."""
        with self._archive._writing():
            self.file.write(data)
        begin, self.size = self.size, self.size + len(data)
        if len(data) >= SMALL:
            data = self.view(begin, len(data))  # what it was may go, before it is hashed
        self._hashed = self._archive._beside.submit(self._digest.update, data)

    def view(self, begin: int, size: int) -> memoryview:
        """Bytes of the entry, mapped from the file: the kernel takes them back when memory is
        short. They stay what they are when the file is moved or gone."""
        file = self._archive._file
        with self._archive._writing():
            file.flush()
            before = (self._start + begin) % mmap.ALLOCATIONGRANULARITY
            offset = self._start + begin - before
            mapped = mmap.mmap(file.fileno(), before + size, mmap.MAP_PRIVATE, offset=offset)
        return memoryview(mapped)[before:]

    def end(self) -> None:
        with self._archive._writing():
            self.file.close()
        self._archive._open = None

    def sha256(self) -> str:
        self._hashed.result()  # the last: there is one thread
        return self._digest.hexdigest()

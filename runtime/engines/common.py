"""What the engines that need no torch share: opening a file, and the header of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ... import process
from ...profiling.engine import Request, header_of_run
from ...profiling.errors import ProfileError
from ...profiling.trace import Event, Header, Trace
from ..base import BasePackage


class FileEngine(ABC):
    """A file, opened again only where a request wants other threads: profiling.engine.Engine."""

    name: str
    package: BasePackage

    def __init__(self, path: str) -> None:
        imported = process.now()
        self.path, self.threads = path, 0
        self.open()
        start_up = {
            "import_ms": (imported - process.start_time()) * 1e3,
            "load_ms": (process.now() - imported) * 1e3,
        }
        self.kind = self.package.manifest["model"]["kind"]
        if self.kind not in ("decoder", "encoder"):
            raise ProfileError(f"it is of kind {self.kind}, and engines are given token ids")
        self.header = Header(
            engine=self.name,
            name=path,
            model=self.package.manifest["model"],
            start_up=start_up,
        )

    @abstractmethod
    def open(self) -> None:
        """Set `package`, of `path` and with `threads`."""

    @abstractmethod
    def record(self, request: Request, traced: bool) -> tuple[Trace, list[Event], dict[str, Any]]:
        """One run: its trace without a header, its steps as timed here, the header's `result`."""

    def run(self, request: Request, traced: bool) -> Trace:
        """Raises the runtime's errors for a request that the model cannot take."""
        if request.threads != self.threads:
            self.threads = request.threads
            self.open()
        trace, steps, result = self.record(request, traced)
        trace.header = header_of_run(self.header, request, result, steps)
        return trace

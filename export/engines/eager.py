"""`eager:CHECKPOINT`: our modules, run by PyTorch as they are written.

Traced by forward hooks: an event is what a module itself did between its children, Python and
PyTorch's dispatch with it.
"""

from __future__ import annotations

from ...child import serve
from ...profiling.engine import Request
from .common import Forward, TorchEngine, ragged
from .hooks import ModuleTimer


class Eager(TorchEngine):
    name = "eager"

    def load(self) -> None:
        self.model = self.source.load()

    def begin(self, request: Request) -> Forward:
        return ragged(self.source, self.model, request)

    def tracer(self) -> ModuleTimer:
        return ModuleTimer(self.model)


if __name__ == "__main__":
    serve(Eager)

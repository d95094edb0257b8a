"""Self times of modules, by forward hooks: how the engines that run eagerly are traced.

At any moment one module is the innermost that runs. Each hook ends a piece of the time of the
module that was innermost until then, so that pieces never overlap: a module's pieces are its
interval without its children's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ...profiling.steps import now_us
from ...profiling.trace import ROOT, Event
from .common import Tracer


class ModuleTimer(Tracer):
    """Hooks on all modules, while it is open."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = {path or ROOT: module for path, module in model.named_modules()}
        self._running: list[str] = []
        self._since = 0.0
        self._pieces: list[tuple[str, float, float]] = []

    def __enter__(self) -> None:
        self._hooks = [
            hook
            for path, module in self._modules.items()
            for hook in (
                module.register_forward_pre_hook(partial(self._begin, path)),
                module.register_forward_hook(self._end),
            )
        ]

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, path: str, *_: Any) -> None:
        self._cut()
        self._running.append(path)

    def _end(self, *_: Any) -> None:
        self._cut()
        self._running.pop()

    def _cut(self) -> None:
        now = now_us()
        if self._running:
            self._pieces.append((self._running[-1], self._since, now))
        self._since = now

    def events(self, steps: list[Event]) -> list[Event]:
        found, later = [], iter(steps)
        step = next(later)
        for path, start, end in self._pieces:
            while start >= step.end_us:
                step = next(later)
            args = {"module": path, "step": step.args["step"], "phase": step.args["phase"]}
            name = type(self._modules[path]).__name__
            found.append(Event(name, "host", start, end - start, args=args))
        return found

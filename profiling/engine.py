"""Engines: ways of running a model, each in a process of its own, so that one's libraries, threads
and memory stay out of another's measurement.

An engine's module ends with `serve(MyEngine)` (child.py); the comparison starts it as a `Process`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..child import Child
from .errors import ProfileError
from .trace import Trace


@dataclass(frozen=True)
class Request:
    """What every engine is asked alike: token ids, and how many to generate greedily after them.

    An encoder gets new_tokens 0. threads: 0 means the cores that this process may use.
    """

    tokens: tuple[int, ...]
    new_tokens: int
    threads: int = 0


class Engine(Protocol):
    """Made from what follows the colon of "eager:CHECKPOINT"; loading is timed by itself."""

    def run(self, request: Request, traced: bool) -> Trace:
        """One run from an empty cache. Its header's `runs` holds this one's time.

        Untraced, `events` are the steps alone and nothing slows the run. The first token of the
        result follows the prompt; stop ids do not stop.
        """
        ...


class Process(Child):
    """An engine in a process of its own. Raises ProfileError with the engine's own sentence."""

    def __init__(self, module: str, source: str) -> None:
        super().__init__(module, source, source, ProfileError)

    def run(self, request: Request, traced: bool) -> Trace:
        trace: Trace = self.call("run", request, traced)
        return trace

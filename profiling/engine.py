"""Engines: ways of running a model, each in a process of its own, driven over a pipe.

An engine's module ends with `serve(MyEngine)`; the comparison starts it by `Process`, which speaks
to it. Processes keep one engine's libraries, threads and memory out of another's measurement.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

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


class Process:
    """The parent's end of one engine. Raises ProfileError with the engine's own sentence."""

    def __init__(self, module: str, source: str) -> None:
        self.source = source
        self._pipe, remote = Pipe()
        here = str(Path(__file__).parents[2])  # where this ingot was imported from
        search = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        with remote:
            self._child = subprocess.Popen(
                [sys.executable, "-m", module, source, str(remote.fileno())],
                pass_fds=[remote.fileno()],
                env={**os.environ, "PYTHONPATH": search},
            )

    def run(self, request: Request, traced: bool) -> Trace:
        try:
            self._pipe.send((request, traced))
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ProfileError(f"the process of {self.source} ended; see its message") from error
        if isinstance(answer, str):
            raise ProfileError(answer)
        assert isinstance(answer, Trace)
        return answer

    def close(self) -> None:
        self._pipe.close()  # at which the child ends
        self._child.wait()


def serve(make: Callable[[str], Engine]) -> None:
    """The child's whole life: make the engine, answer runs until the parent is gone."""
    source, pipe = sys.argv[1], Connection(int(sys.argv[2]))
    try:
        engine = make(source)
    except Exception as error:
        pipe.send(f"{source} cannot be run: {error}")
        return
    while True:
        try:
            request, traced = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(engine.run(request, traced))
        except Exception as error:
            pipe.send(f"{source} failed: {error}")

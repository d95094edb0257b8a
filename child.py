"""An object in a process of its own, whose methods are called over a pipe.

The module of the object's class ends with `serve(TheClass)`; the parent starts it as a `Child`. So
one library's threads, memory and symbols stay out of another's way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class Child:
    """The parent's end of one process. What goes wrong there is raised as an `error`, in one
    sentence that begins with `name`.
    """

    def __init__(
        self,
        module: str,
        argument: str,
        name: str,
        error: type[Exception],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """argument, options: what the object in the child is made from. Options go as JSON."""
        self._name, self._error = name, error
        self._pipe, remote = Pipe()
        here = str(Path(__file__).parents[1])  # where this ingot was imported from
        search = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        with remote:
            given = (argument, str(remote.fileno()), json.dumps(options or {}))
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *given],
                pass_fds=[remote.fileno()],
                env={**os.environ, "PYTHONPATH": search},
            )

    def call(self, method: str, *arguments: Any) -> Any:
        """What the object's method returns."""
        try:
            self._pipe.send((method, arguments))
            succeeded, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._error(f"{self._name} has ended; see its message") from error
        if not succeeded:
            raise self._error(f"{self._name} {answer}")
        return answer

    def close(self) -> None:
        self._pipe.close()  # at which the child ends
        self._process.wait()


def serve(make: Callable[..., object]) -> None:
    """The child's whole life: make the object, answer calls until the parent is gone."""
    argument, pipe = sys.argv[1], Connection(int(sys.argv[2]))
    try:
        served = make(argument, **json.loads(sys.argv[3]))
    except Exception as error:
        pipe.send((False, f"cannot be run: {error}"))
        return
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(served, method)(*arguments)))
        except Exception as error:
            pipe.send((False, f"failed: {error}"))

"""A command of the suite in a process group of its own, which its time's end ends."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def follow(
    words: Sequence[str],
    seconds: float,
    log: Path,
    take: Callable[[str], None],
    environment: Mapping[str, str],
) -> int | None:
    """Run `words`; `take` is given each line of its output as soon as it is whole. All that it
    says, errors too, is appended to `log`.

    Returns the exit status, or None where it was ended because its time was over.
    """
    end, rest = time.monotonic() + seconds, ""
    # Through a file: a pipe would stay open as long as any process that it has left behind.
    with tempfile.NamedTemporaryFile("r", errors="replace") as output, log.open("a") as said:
        print("$", *words, file=said, flush=True)
        with open(output.name, "wb") as written:
            child = subprocess.Popen(
                words,
                cwd=ROOT,
                stdout=written,
                stderr=said,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        try:
            while True:
                status = child.poll()  # before it is read, so that nothing comes after
                *lines, rest = (rest + output.read()).split("\n")
                for line in lines:
                    print(line, file=said, flush=True)
                    take(line)
                if status is not None:
                    return status
                if time.monotonic() > end:
                    return None
                time.sleep(0.05)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # with its own children
                child.wait()

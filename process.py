"""What the kernel knows of this process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn


def start_time() -> float:
    """When the process began, in seconds of CLOCK_BOOTTIME (proc(5): stat, field 22)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def now() -> float:
    """Seconds of the same clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def peak_rss_mb() -> float:
    """Most memory that was resident, in MiB (proc(5): VmHWM).

    getrusage's ru_maxrss would not do: it begins with that of the process which started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kib) / 1024


class Stopped(KeyboardInterrupt):
    """A signal, by number, as an exception: what is half done is undone on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """While it is open SIGINT, SIGTERM and SIGHUP raise Stopped, unless they were ignored before,
    as nohup does. Where the exception is lost, in a callback of C code or inside an `except` of
    all, the function that this yields raises it again: call it now and then.
    """
    stopped: list[int] = []

    def stop(number: int, _: FrameType | None) -> NoReturn:
        stopped.append(number)
        raise Stopped(number)

    def check() -> None:
        if stopped:
            raise Stopped(stopped[0])

    heeded = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in heeded}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

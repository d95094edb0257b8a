"""Run traces from Python: what a call of the library did, and what it could have reached."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..profiling.trace import Trace, from_chrome, read_json
from . import capi
from .package import Package

Result = TypeVar("Result")
_READ_BYTES = 1 << 28  # of the weights: more than caches hold


def traced(run: Callable[[], Result]) -> tuple[Result, Trace]:
    """The result, and the trace of what every package of the process did meanwhile."""
    library = capi.library()
    library.ingot_trace_start()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        try:
            result = run()
        finally:  # recording must end
            status = library.ingot_trace_write(os.fsencode(path))
        capi.check(status)
        return result, from_chrome(read_json(path), str(path))


def ceilings(package: Package, threads: int) -> dict[str, float]:
    """A trace header's: how fast the weights can be read, and arithmetic done, at this moment."""
    return {
        "read_gb_s": package.measure_read(_READ_BYTES),
        "gflop_s": float(capi.library().ingot_measure_flops(threads)),
    }

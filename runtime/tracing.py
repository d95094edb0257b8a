"""Run traces from Python: what a call of the library did, and what it could have reached."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..profiling.roofline import FACTORS
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
    """A trace header's: how fast the weights can be read, and what they are multiplied with can be
    multiplied, at this moment. Of a GPU nothing is known."""
    if package.manifest.get("device") == "cuda":
        return {}
    factor = _multiplied(package.manifest)
    return {
        "read_gb_s": package.measure_read(_READ_BYTES),
        "gflop_s": float(capi.library().ingot_measure_peak(factor.encode(), threads)),
    }


def _multiplied(manifest: dict[str, Any]) -> str:
    """The factors of most products of a model's step, one of roofline.FACTORS."""
    if recipe := manifest.get("quantization"):
        return "int8" if 8 in recipe["activation_bits"] else "bfloat16"
    dtype = str(manifest["model"].get("dtype"))
    return dtype if dtype in FACTORS else "float32"

"""One setting's turn: a fresh process that runs every batch, its answer read strictly."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from ..measure import WorkerFailed, run
from .settings import BATCHES, EncoderSetting

# Below this it is another function; bfloat16 and 8 bits stay far above it.
LEAST_COSINE = 0.9


def parse(line: dict[str, Any], count: int) -> tuple[str, list[dict[str, Any]]]:
    """The engine's version, and a run for each of `count` examples. Raises WorkerFailed."""
    runs = line.get("runs")
    if line.keys() != {"version", "runs"} or not isinstance(runs, list) or len(runs) != count:
        raise WorkerFailed(f"its answer is not a version and {count} runs: {str(line)[:80]}")
    for one in runs:
        if not isinstance(one, dict) or one.keys() != {"ms", "cosine"}:
            raise WorkerFailed(f"a run is not ms and cosine: {str(one)[:80]}")
        if not one["ms"] or min(one["ms"]) <= 0:
            raise WorkerFailed(f"times {str(one['ms'])[:80]} cannot be")
        if not one["cosine"] >= LEAST_COSINE:  # NaN is not either
            raise WorkerFailed(f"its output is not eager torch's: cosine {one['cosine']:.3f}")
    return str(line["version"]), runs


def turn(
    setting: EncoderSetting, work: Path, threads: int, seconds: float, timeout_s: float
) -> dict[str, Any]:
    """Raises WorkerFailed."""
    asked = [setting.model(work), setting.precision, threads, seconds, *setting.examples(work)]
    answer = run([*setting.worker(work), *map(str, asked)], threads, timeout_s)
    version, runs = parse(answer.line, len(BATCHES))
    return {
        "version": version,
        **{
            f"batch_{batch}_ms": statistics.median(one["ms"])
            for batch, one in zip(BATCHES, runs, strict=True)
        },
        "cosine": min(one["cosine"] for one in runs),
        "answered_s": answer.answered_s,
        "other_cpu": answer.other_cpu,
    }

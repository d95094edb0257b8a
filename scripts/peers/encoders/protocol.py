"""What the encoders' workers share; it runs in each engine's own environment.

    python WORKER.py MODEL PRECISION THREADS SECONDS EXAMPLE.npz ...

A worker is a fresh process that prints one line of JSON: {"version": the engine's, "runs": [...]}.
An example holds an input `x` and the output `y` of eager torch in float32; its run is {"ms": the
time of each call, "cosine": of the output and y}. Calls are timed one by one, after one to warm up,
for SECONDS and at least three times.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Call = Callable[[], Array]  # the network once; what it returns is float32
Load = Callable[[str, str, int], Callable[[Array], Call]]

LEAST = 3


def cosine(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        raise SystemExit(f"the output has shape {a.shape}, not {b.shape}")
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def run(call: Call, y: Array, seconds: float) -> dict[str, object]:
    out = call()
    times: list[float] = []
    while len(times) < LEAST or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return {"ms": [t * 1e3 for t in times], "cosine": cosine(out, y)}


def serve(version: str, load: Load) -> None:
    """The whole worker. load(model, precision, threads) gives what makes a call of an input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints is no answer
    model, precision, threads, seconds, *examples = sys.argv[1:]
    prepare, runs = load(model, precision, int(threads)), []
    for example in examples:
        with np.load(example) as arrays:
            runs.append(run(prepare(arrays["x"]), arrays["y"], float(seconds)))
    print(json.dumps({"version": version, "runs": runs}), file=answers, flush=True)
    os._exit(0)  # taking an engine down is not measured, and not every one does it cleanly

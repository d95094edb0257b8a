"""Runs the parts one after the other, each in processes that cannot take the others with them, and
prints one table. What a part has measured counts also where its time ran out.

    scripts/gpu_suite [--parts ops,sanitizer,bench,model] [--minutes 8] [--only TEXT] [-o RECORD]
    scripts/gpu_suite --make [--shape SHAPE] [--recipes bf16,int4]

ops: every op's every case against float64. sanitizer: a few of them under compute-sanitizer. bench:
the ops beside torch's. model: decoding by a whole model. The record is JSON: the rows, and on what
they were measured. Exit code 2 where there is no GPU, 1 where a part failed. It needs nothing but
torch, pytest and the libraries. --make writes what `model` runs, on a machine without a GPU, for
one whose torch does not export for GPUs (carried.py).
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ingot import native

from . import carried
from .table import table

ROOT = Path(__file__).parents[2]
PARTS = ("ops", "sanitizer", "bench", "model")
_CASES = [
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "--maxfail=5",  # what fails every case says no more by failing hundreds
    "-p",
    "no:cacheprovider",
    "tests/cuda/test_gpu.py",
]
_LIBRARIES = ("libingot_ops.so.1", "libingot_ops_cuda.so.1")


def main() -> int:
    arguments = parse(sys.argv[1:])
    if arguments.make:
        for recipe in arguments.recipes.split(","):
            print(carried.make(arguments.shape, recipe))
        return 0
    if reason := no_gpu():
        print(f"gpu_suite: no GPU found: {reason}", file=sys.stderr)
        return 2
    end = time.monotonic() + 60 * arguments.minutes
    rows: list[dict[str, Any]] = []
    build_what_is_missing()
    for part in arguments.parts:
        for row in run(part, arguments, end):
            rows.append({"part": part, **row})
            print(json.dumps(rows[-1]), file=sys.stderr)
    print(table(rows))
    record = {"when": datetime.datetime.now(datetime.UTC).isoformat(), **facts(), "rows": rows}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(record, indent=1))
    return int(any("failed" in row for row in rows))


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_suite")
    parser.add_argument("--parts", type=_parts, default=PARTS, help="default: all, in this order")
    parser.add_argument("--make", action="store_true", help="model's packages, to be carried")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", default="", help="rows of bench whose name holds this")
    parser.add_argument("--shape", default="llama-3-8b", help="of model")
    parser.add_argument("--recipes", default="bf16,int4", help="of model: bf16, int8, int4")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "gpu_suite.json")
    return parser.parse_args(words)


def _parts(text: str) -> tuple[str, ...]:
    for name in text.split(","):
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"{name!r} is no part; these are {', '.join(PARTS)}")
    return tuple(text.split(","))


def no_gpu() -> str:
    """Why there is none that could be used; "" if there is one. Asked of the driver itself."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"{error}; run this where there is an NVIDIA GPU with its driver"
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return "the driver does not answer; look at nvidia-smi"
    return "" if count.value else "the driver knows none; look at CUDA_VISIBLE_DEVICES"


def build_what_is_missing() -> None:
    """Raises CalledProcessError where the compilers' complaints are on the terminal."""
    try:
        for name in _LIBRARIES:
            native.find(name)
    except FileNotFoundError:
        subprocess.run([ROOT / "scripts" / "build", "-DINGOT_CUDA=ON"], check=True)


def commands(part: str, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """What a part runs, by the names of its rows; {} where what it needs is not there."""
    worker = [sys.executable, "-m", "gpu.worker"]
    if part == "ops":
        return {"every case": _CASES}
    if part == "sanitizer":
        checker = shutil.which("compute-sanitizer")
        tools = ("memcheck", "racecheck") if checker else ()
        checked = [str(checker), "--error-exitcode", "9", "--target-processes", "all", "--tool"]
        return {tool: [*checked, tool, *_CASES, "-k", "sample"] for tool in tools}
    if part == "bench":
        return {"": [*worker, "bench", "--only", arguments.only]}
    return {"": [*worker, "model", "--shape", arguments.shape, "--recipes", arguments.recipes]}


def run(part: str, arguments: argparse.Namespace, end: float) -> Iterator[dict[str, Any]]:
    """The part's rows; one that says why, where it failed or was not run."""
    planned = commands(part, arguments)
    if not planned:
        yield {"name": "not run", "skipped": "compute-sanitizer is not installed"}
    for name, command in planned.items():
        left = end - time.monotonic()
        if left <= 0:
            yield {"name": name or "not run", "skipped": "the time was over"}
            continue
        output, status = finish(command, left)
        yield from read(name, output, status)


def finish(command: list[str], seconds: float) -> tuple[str, int | None]:
    """What a command wrote, and its exit status; None where it was ended when its time was over."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        try:
            return child.communicate(timeout=seconds)[0], child.returncode
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # with its own children
            return child.communicate()[0], None


def read(name: str, output: str, status: int | None) -> Iterator[dict[str, Any]]:
    """Rows from what a command wrote: lines of JSON, or for a test run, which has a name, its last
    line. status: None where its time ran out."""
    lines = output.splitlines()
    if not name:
        yield from (json.loads(line) for line in lines if line.startswith("{") and line[-1] == "}")
    last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    if status is None:
        yield {"name": name or "the rest", "skipped": "the time was over"}
    elif status:
        yield {"name": name or "the rest", "failed": f"exit code {status}: {last}"}
    elif name:
        yield {"name": name, "passed": last}


def facts() -> dict[str, Any]:
    """What the rows were measured on."""
    asked = {
        "device": ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
        "commit": ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        "torch": [sys.executable, "-c", "import torch; print(torch.__version__)"],
    }
    found = {}
    for name, command in asked.items():
        try:
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            found[name] = said.stdout.strip()
        except OSError:
            found[name] = "unknown"
    return found


if __name__ == "__main__":
    sys.exit(main())

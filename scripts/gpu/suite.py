"""Runs the parts one after the other, each in processes that cannot take the others with them, and
prints one table. What has been measured counts whatever comes after: the record is written with
every row.

    scripts/gpu_suite [--parts ops,packages,sanitizer,bench,model] [--minutes 8] [--only TEXT]
                      [-o RECORD]
    scripts/gpu_suite --make [--shape SHAPE] [--recipes bf16,int4]

ops: every op's every case against float64. packages: whole ones against the CPU's. sanitizer: a few
of the ops' cases under compute-sanitizer. bench: the ops beside torch's. model: decoding by a whole
model. The record is JSON: the rows, and on what they were measured; what the processes said is in a
file beside it, .log. Exit code 2 where there is no GPU or something to run is missing, 1 where a
part failed. It needs nothing but torch, pytest and the libraries. --make writes what `packages` and
`model` run, on a machine without a GPU, for one whose torch does not export for GPUs (carried.py).
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ingot import native

from . import carried
from .child import follow
from .table import table

ROOT = Path(__file__).parents[2]
PARTS = ("ops", "packages", "sanitizer", "bench", "model")
# Of bench, by what their rows' names hold: what matters most comes first, for time may run out.
_BENCHES = ("paged_attention", "linear_w4", "linear_w8", "linear ", "flex")
_LIBRARIES = {
    "ops": ("libingot_ops.so.1", "libingot_ops_cuda.so.1"),
    "packages": ("libingot.so.1", "libingot_host.so.1", "libingot_cuda.so.1"),
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Command:
    """A process. It writes rows as lines of JSON, or is a test run, whose last line is its row."""

    name: str
    words: list[str]
    is_test: bool = False
    environment: dict[str, str] = field(default_factory=dict)


class Record:
    """The rows so far, in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[Row]()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        now = datetime.datetime.now(datetime.UTC)
        self.head = {"when": now.isoformat(), **facts()}

    @property
    def log(self) -> Path:
        return self.path.with_suffix(".log")

    def add(self, part: str, row: Row) -> None:
        self.rows.append({"part": part, **row})
        print(json.dumps(self.rows[-1]), file=sys.stderr, flush=True)
        whole = self.path.with_suffix(".part")
        whole.write_text(json.dumps({**self.head, "rows": self.rows}, indent=1))
        os.replace(whole, self.path)


def main() -> int:
    arguments = parse(sys.argv[1:])
    if arguments.make:
        for recipe in arguments.recipes.split(","):
            print(carried.make(arguments.shape, recipe))
            for device in ("cuda", "cpu"):
                print(carried.make(carried.CHECKED, recipe, device))
        return 0
    if reason := no_gpu() or missing(arguments.parts):
        print(f"gpu_suite: {reason}", file=sys.stderr)
        return 2
    end = time.monotonic() + 60 * arguments.minutes
    record = Record(arguments.output)
    for count, part in enumerate(arguments.parts):
        seconds = share(end, len(arguments.parts) - count)
        run(part, arguments, record.log, seconds, lambda row, part=part: record.add(part, row))
    print(table(record.rows))
    print(f"gpu_suite: {record.path}, and what was said: {record.log}", file=sys.stderr)
    return int(any("failed" in row for row in record.rows))


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_suite")
    parser.add_argument("--parts", type=_parts, default=PARTS, help="default: all, in this order")
    parser.add_argument("--make", action="store_true", help="model's packages, to be carried")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", default="", help="rows of bench whose name holds this")
    parser.add_argument("--shape", default="llama-3-8b", help="of model")
    parser.add_argument("--recipes", default="bf16,int4", help="of packages: bf16, int8, int4")
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
        return f"no GPU found: {error}; run this where there is an NVIDIA GPU with its driver"
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return "no GPU found: the driver does not answer; look at nvidia-smi"
    if not count.value:
        return "no GPU found: the driver knows none; look at CUDA_VISIBLE_DEVICES"
    return ""


def missing(parts: tuple[str, ...]) -> str:
    """What the parts need and neither have nor can build; "" if there is nothing."""
    if find_spec("torch") is None:
        return f"{sys.executable} has no torch; install one for CUDA, from 2.11 on"
    needed = [
        *_LIBRARIES["ops"],
        *(_LIBRARIES["packages"] if {"model", "packages"} & {*parts} else ()),
    ]
    try:
        for name in needed:
            native.find(name)
    except FileNotFoundError as lacking:
        try:
            subprocess.run([ROOT / "scripts" / "build", "-DINGOT_CUDA=ON"], check=True)
        except (OSError, subprocess.CalledProcessError):
            return (
                f"{lacking}, which failed here; build where nvcc is, with -DINGOT_CUDA=ON, and"
                " bring build/native along"
            )
    return ""


def share(end: float, count: int) -> float:
    """Seconds for the next of `count`: the others get as much at least as half of an equal part,
    so that one which hangs leaves them time."""
    return (end - time.monotonic()) * min(1, 2 / count)


def commands(part: str, arguments: argparse.Namespace) -> list[Command] | str:
    """What a part runs; why not, where what it needs is not there."""
    if part in ("ops", "sanitizer") and find_spec("pytest") is None:
        return "pytest is not installed"
    if part == "ops":
        names = sorted(path.stem for path in (ROOT / "custom_ops" / "cuda").glob("*.cu"))
        # A test's name ends in [op] or [op-case].
        chosen = "([{0}] or [{0}-) and not sample"
        return [Command(name, _cases(chosen.format(name)), is_test=True) for name in names]
    if part == "sanitizer":
        checker = shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}:{_TOOLKIT}")
        if checker is None:
            return "compute-sanitizer is not installed"
        checked = [checker, "--error-exitcode", "9", "--target-processes", "all", "--tool"]
        # Else torch gives tensors parts of larger allocations, whose ends would not be seen.
        alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        planned = [
            Command(tool, [*checked, tool, *_cases("sample")], is_test=True, environment=alone)
            for tool in ("memcheck", "racecheck")
        ]
        package = _packages(arguments)[:1]
        return planned + [
            Command(f"memcheck {one.name}", [*checked, "memcheck", *one.words]) for one in package
        ]
    if part == "packages":
        return _packages(arguments) or "none is carried here; scripts/gpu_suite --make writes them"
    worker = [sys.executable, "-m", "gpu.worker"]
    if part == "bench":
        texts = [arguments.only] if arguments.only else _BENCHES
        return [Command(text.strip(), [*worker, "bench", "--only", text]) for text in texts]
    recipes = [*arguments.recipes.split(","), "compiled"]
    shape = ["--shape", arguments.shape]
    return [Command(name, [*worker, "model", *shape, "--recipe", name]) for name in recipes]


_TOOLKIT = "/usr/local/cuda/bin"


def _packages(arguments: argparse.Namespace) -> list[Command]:
    """Those that are carried here."""
    return [
        Command(f"{carried.CHECKED} {recipe}", [sys.executable, "-m", "gpu.packages", recipe])
        for recipe in arguments.recipes.split(",")
        if all(carried.path_of(carried.CHECKED, recipe, on).exists() for on in ("cuda", "cpu"))
    ]


def _cases(chosen: str) -> list[str]:
    # What fails every case says no more by failing hundreds.
    words = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--maxfail=20"]
    return [*words, "-p", "no:cacheprovider", "tests/cuda/test_gpu.py", "-k", chosen]


def run(
    part: str,
    arguments: argparse.Namespace,
    log: Path,
    seconds: float,
    add: Callable[[Row], None],
) -> None:
    """Adds the part's rows; one that says why, where it failed or was not run."""
    end = time.monotonic() + seconds
    planned = commands(part, arguments)
    if isinstance(planned, str):
        add({"name": "not run", "skipped": planned})
        return
    for count, command in enumerate(planned):
        left = share(end, len(planned) - count)
        if left <= 0:
            add({"name": command.name, "skipped": "the time was over"})
        else:
            for row in run_command(command, left, log, add):
                add(row)


def run_command(
    command: Command, seconds: float, log: Path, add: Callable[[Row], None]
) -> list[Row]:
    """Adds the rows that it writes as they come; returns how it ended, if that is worth a row."""

    def take(line: str) -> None:
        if command.is_test or not line.startswith('{"name": '):
            return
        with suppress(ValueError):  # half a line, of one that crashed
            add(json.loads(line))

    status = follow(command.words, seconds, log, take, command.environment)
    last = next((line for line in reversed(log.read_text().splitlines()) if line.strip()), "")
    name = command.name if command.is_test else f"{command.name}: the rest"
    if status is None:
        return [{"name": name, "skipped": "the time was over"}]
    if status:
        return [{"name": name, "failed": f"exit code {status}: {last}"}]
    return [{"name": name, "passed": last}] if command.is_test else []


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
            said = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        except OSError:
            said = ""
        found[name] = said or "unknown"
    return found


if __name__ == "__main__":
    sys.exit(main())

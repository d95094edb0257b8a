"""One setting's turn: two fresh processes, their answers read strictly."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .engines import Setting, cold_command, warm_command

LONG, SHORT, COLD = 512, 32, 32  # prompt tokens


class WorkerFailed(Exception):
    """One sentence for the table."""


@dataclass(frozen=True)
class Answer:
    """answered_s: from the process's start to its line. other_cpu: the share of all cores that
    other processes, and other tenants of the host, took meanwhile."""

    line: dict[str, Any]
    answered_s: float
    peak_rss_mb: float
    other_cpu: float


def _machine_busy_s() -> float:
    """CPU seconds of all cores that were not idle, stolen ones too (proc(5), /proc/stat)."""
    fields = [int(f) for f in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle, iowait = fields[3:5]
    return (sum(fields) - idle - iowait) / os.sysconf("SC_CLK_TCK")


def run(command: list[str], threads: int, timeout_s: float) -> Answer:
    """Raises WorkerFailed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        busy, start = _machine_busy_s(), time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        assert process.stdout is not None
        alarm = threading.Timer(timeout_s, process.kill)
        alarm.start()
        first = process.stdout.readline()
        answered_s = time.perf_counter() - start
        rest = process.stdout.read()
        # wait4 knows this child alone; its peak begins with that of this process, which is small.
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        late = not alarm.is_alive()
        alarm.cancel()
        errors.seek(0)
        said = [line.strip() for line in errors if line.strip()]
    if late:
        raise WorkerFailed(f"no answer within {timeout_s:.0f} s")
    if process.returncode:
        raise WorkerFailed(said[-1][:200] if said else f"exit status {process.returncode}")
    others_s = _machine_busy_s() - busy - used.ru_utime - used.ru_stime
    return Answer(
        parse_line(first, rest),
        answered_s,
        used.ru_maxrss * 1024 / 1e6,
        max(0.0, others_s / wall_s / (os.cpu_count() or 1)),
    )


def parse_line(first: str, rest: str) -> dict[str, Any]:
    """A worker prints one line, a JSON object. Raises WorkerFailed."""
    try:
        line = json.loads(first)
    except ValueError:
        line = None
    if not isinstance(line, dict) or rest:
        raise WorkerFailed(
            f"it printed other than one JSON object: {(first + rest).strip()[:80]!r}"
        )
    return line


def parse_about(line: dict[str, Any]) -> tuple[str, str]:
    """Version, and precision of the head. Raises WorkerFailed."""
    if line.keys() != {"version", "head"} or not all(isinstance(v, str) for v in line.values()):
        raise WorkerFailed(f"it says of itself {line}, not version and head")
    return line["version"], line["head"]


def parse_runs(line: dict[str, Any], counts: list[int]) -> list[dict[str, Any]]:
    """The runs of a worker that was asked for `counts` tokens. Raises WorkerFailed."""
    runs = line.get("runs")
    if line.keys() != {"runs"} or not isinstance(runs, list) or len(runs) != len(counts):
        raise WorkerFailed(f"its answer is not {len(counts)} runs: {str(line)[:80]}")
    for run, count in zip(runs, counts, strict=True):
        if not isinstance(run, dict) or run.keys() != {"tokens", "first_s", "last_s"}:
            raise WorkerFailed(f"a run is not tokens, first_s and last_s: {str(run)[:80]}")
        if not 0 < run["first_s"] <= run["last_s"]:
            raise WorkerFailed(f"times {run['first_s']} and {run['last_s']} cannot be")
        _check_tokens(run["tokens"], count)
    return runs


def parse_cold(line: dict[str, Any]) -> int:
    """The token of a cold start, by a worker or by ingot-run. Raises WorkerFailed."""
    tokens = line["tokens"] if "tokens" in line else parse_runs(line, [1])[0]["tokens"]
    _check_tokens(tokens, 1)
    return int(tokens[0])


def _check_tokens(tokens: Any, count: int) -> None:
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise WorkerFailed(f"tokens are {str(tokens)[:80]}")
    if len(tokens) != count:
        raise WorkerFailed(f"{len(tokens)} tokens where {count} were asked for")


def prompt(seed: str, length: int) -> list[int]:
    """Token ids, the same for every engine and others with each seed: some keep prefixes."""
    generator = random.Random(f"{seed} {length}")
    return [generator.randrange(300, 30000) for _ in range(length)]


def about(setting: Setting, work: Path, threads: int, timeout_s: float) -> tuple[str, str]:
    return parse_about(run(warm_command(setting, work, threads, []), threads, timeout_s).line)


def turn(
    setting: Setting, work: Path, threads: int, new_tokens: int, index: int, timeout_s: float
) -> dict[str, Any]:
    """Measure once: first warm, which also fills the page cache, then cold. Raises WorkerFailed."""
    requests = [
        (8, prompt(f"warm-up {index}", LONG)),
        (new_tokens, prompt(f"long {index}", LONG)),
        (new_tokens, prompt(f"short {index}", SHORT)),
    ]
    warm = run(warm_command(setting, work, threads, requests), threads, timeout_s)
    _, long, short = parse_runs(warm.line, [count for count, _ in requests])
    chilled = prompt(f"cold {index}", COLD)
    cold = run(cold_command(setting, work, threads, chilled), threads, timeout_s)
    first = parse_cold(cold.line)

    def decode(run: dict[str, Any]) -> float:
        return float((new_tokens - 1) / (run["last_s"] - run["first_s"]))

    return {
        "prefill_tok_s": LONG / long["first_s"],
        "decode_long_tok_s": decode(long),
        "decode_short_tok_s": decode(short),
        "cold_ms": cold.answered_s * 1e3,
        "peak_rss_mb": warm.peak_rss_mb,
        "cold_peak_rss_mb": cold.peak_rss_mb,
        "other_cpu": max(warm.other_cpu, cold.other_cpu),
        "tokens": [first, *long["tokens"], *short["tokens"]],
    }


def size_mb(path: Path) -> float:
    """Of a file, or of a folder's files."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files) / 1e6

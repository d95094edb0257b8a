"""Does a process that serves for long grow? Generations, openings and embeddings by the thousand.

    python scripts/long_run.py PACKAGE [--generations 10000] [--sessions 8] [--openings 1000]
        [--encoder PACKAGE --embeddings 1000] [--threads 1] [--seed 0] [--json FILE]

Sessions generate at once, each from a thread of its own: prompts and answers of random lengths,
greedy and sampled, some stopped in the middle, some in a session that goes on, some refused; traces
go on and off in between, the leak check stays on. Memory (RSS), file descriptors and threads are
read a hundred times. What they grow by is the slope over what follows the first fifth (Theil and
Sen: the median of the slopes of all pairs, which outliers do not move) times its length. Exit code
1 if memory grows by more than 2 MB, or anything else by one, in any part; or if a tensor handle is
not freed.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import click

import ingot
from ingot.runtime import BadInput, capi, controls

READINGS = 100
WARM_UP = 0.2  # of the readings
MOST_GROWTH_MB = 2.0
SESSION_TOKENS = 512  # of the KV cache; more than a session comes to hold
STEP_TOKENS = 264  # of one step of the runtime: 256 of prompts, and one of each other session


@dataclass(frozen=True)
class Reading:
    done: int
    rss_mb: float
    files: int
    threads: int


def read(done: int) -> Reading:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    rss_mb = pages * os.sysconf("SC_PAGESIZE") / 2**20
    return Reading(done, rss_mb, *(len(os.listdir(f"/proc/self/{x}")) for x in ("fd", "task")))


def growth(readings: list[Reading], name: str) -> float:
    """What `name` grew by after the warm-up: its slope times the length of what was read."""
    warm = readings[int(len(readings) * WARM_UP) :]
    points = [(reading.done, getattr(reading, name)) for reading in warm]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] > a[0]]
    return statistics.median(slopes) * (points[-1][0] - points[0][0]) if slopes else 0.0


@dataclass
class Part:
    """One kind of work, done `count` times, and what the process was meanwhile."""

    name: str
    count: int
    seconds: float
    readings: list[Reading]

    def facts(self) -> dict[str, Any]:
        first, last = self.readings[int(len(self.readings) * WARM_UP)], self.readings[-1]
        grown = {name: growth(self.readings, name) for name in ("rss_mb", "files", "threads")}
        return {
            "name": self.name,
            "count": self.count,
            "seconds": round(self.seconds, 1),
            "readings": [[r.done, round(r.rss_mb, 2), r.files, r.threads] for r in self.readings],
            "after_warm_up": asdict(first),
            "at_the_end": asdict(last),
            "growth": {name: round(value, 3) for name, value in grown.items()},
            "flat": grown["rss_mb"] <= MOST_GROWTH_MB
            and grown["files"] < 1
            and grown["threads"] < 1,
        }


class Watch:
    """Counts what was done, by any thread, and reads the process as it goes."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count, self.done = name, count, 0
        self.readings = [read(0)]
        self._lock = threading.Lock()
        self._began = time.perf_counter()

    def claim(self) -> bool:
        """One more is to be done: false when all are claimed."""
        with self._lock:
            if self.done == self.count:
                return False
            self.done += 1
            if self.done % max(self.count // READINGS, 1) == 0:
                self.readings.append(read(self.done))
                print(f"\r{self.name}: {self.done} of {self.count}", end="", file=sys.stderr)
            return True

    def part(self) -> Part:
        print(file=sys.stderr)
        seconds = time.perf_counter() - self._began
        return Part(self.name, self.count, seconds, self.readings)


def generate_once(session: ingot.runtime.Session, draw: random.Random, vocab_size: int) -> None:
    """One generation of random length, which may be stopped or refused."""
    if session.length > 300 or draw.random() < 0.3:
        session.reset()
    prompt = [draw.randrange(vocab_size) for _ in range(draw.randint(1, 64))]
    new = draw.randint(1, 24)
    taken = draw.randint(1, new) if draw.random() < 0.3 else new
    sampling = {"temperature": 1.0, "top_k": 40} if draw.random() < 0.5 else {"temperature": 0.0}
    if draw.random() < 0.05:
        prompt.append(vocab_size)
    try:
        pieces = session.generate(
            prompt, max_new_tokens=new, ignore_eos=True, seed=draw.randrange(2**32), **sampling
        )
        for _ in range(taken):
            next(pieces)
        pieces.close()
    except BadInput as error:
        if "out of range" not in str(error):
            raise


def warm_up(package: ingot.Package, sessions: int) -> None:
    """Take what the process comes to hold, which is bounded but would look like growth: the whole
    KV cache, committed as it is used, and temporaries, kept for each size of a step."""
    held = [package.session() for _ in range(sessions)]
    for session in held:
        session.score([1] * SESSION_TOKENS, [1])
    for count in range(1, STEP_TOKENS + 1):
        held[0].reset()
        held[0].score([1] * count, [1])
    for session in held:
        session.close()


def trace_for(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        capi.library().ingot_trace_start()
        time.sleep(seconds)
        capi.check(capi.library().ingot_trace_write(f"{folder}/trace.json".encode()))


def generations(path: Path, count: int, sessions: int, seed: int, threads: int) -> Part:
    package = ingot.load(path, threads=threads, kv_tokens=sessions * SESSION_TOKENS)
    warm_up(package, sessions)
    watch, failures = Watch("generations", count), []
    vocab_size = package.manifest["model"]["vocab_size"]

    def serve(who: int) -> None:
        draw, session = random.Random(f"{seed}-{who}"), package.session()
        try:
            while not failures and watch.claim():
                generate_once(session, draw, vocab_size)
                if draw.random() < 0.1:
                    session.close()
                    session = package.session()
        except BaseException as error:
            failures.append(error)
        finally:
            session.close()

    threads = [threading.Thread(target=serve, args=(who,)) for who in range(sessions)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        trace_for(0.05)
        time.sleep(0.5)
    if failures:
        raise failures[0]
    return watch.part()


def openings(path: Path, count: int, threads: int) -> Part:
    watch = Watch("openings", count)
    while watch.claim():
        package = ingot.load(path, threads=threads)
        list(package.generate([1, 2, 3], max_new_tokens=2, ignore_eos=True))
        del package
    return watch.part()


def embeddings(path: Path, count: int, seed: int, threads: int) -> Part:
    package, draw = ingot.load(path, threads=threads), random.Random(seed)
    vocab_size = package.manifest["model"]["vocab_size"]
    longest = min(package.manifest["embedding"]["max_tokens"], 64)
    watch = Watch("embeddings", count)
    while watch.claim():
        lengths = [draw.randint(1, longest) for _ in range(draw.randint(1, 4))]
        package.embed_tokens([[draw.randrange(vocab_size) for _ in range(n)] for n in lengths])
    return watch.part()


@contextmanager
def leaks() -> Iterator[Callable[[], str]]:
    """What the leak check says of all packages that were opened and closed inside."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "leaks.txt"
        controls.turn_on(f"leak-check={file}")

        def told() -> str:
            controls.report()
            return file.read_text()

        yield told


def run(
    package: Path,
    counts: tuple[int, int, int],
    sessions: int = 8,
    encoder: Path | None = None,
    seed: int = 0,
    threads: int = 1,
) -> dict[str, Any]:
    """counts: of generations, of openings, of embeddings. The facts of each part; leaks."""
    with leaks() as told:
        parts = [generations(package, counts[0], sessions, seed, threads)]
        if counts[1]:
            parts.append(openings(package, counts[1], threads))
        if encoder and counts[2]:
            parts.append(embeddings(encoder, counts[2], seed, threads))
        leaked = told()
    facts = [part.facts() for part in parts]
    flat = all(part["flat"] for part in facts) and " 0 not freed" in leaked
    return {"parts": facts, "leak_check": leaked.strip(), "flat": flat}


@click.command()
@click.argument("package", type=click.Path(exists=True, path_type=Path))
@click.option("--generations", "count", default=10_000, show_default=True)
@click.option("--sessions", default=8, show_default=True)
@click.option("--openings", "opened", default=1000, show_default=True)
@click.option("--encoder", type=click.Path(exists=True, path_type=Path))
@click.option("--embeddings", "embedded", default=1000, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="The facts, as JSON.")
def main(
    package: Path,
    count: int,
    sessions: int,
    opened: int,
    encoder: Path | None,
    embedded: int,
    threads: int,
    seed: int,
    file: Path | None,
) -> None:
    facts = run(package, (count, opened, embedded), sessions, encoder, seed, threads)
    for part in facts["parts"]:
        end, grown = part["at_the_end"], part["growth"]
        print(
            f"{part['count']} {part['name']} in {part['seconds']} s: RSS {end['rss_mb']:.1f} MB"
            f" ({grown['rss_mb']:+.2f}), {end['files']} files ({grown['files']:+.0f}),"
            f" {end['threads']} threads ({grown['threads']:+.0f})"
        )
    print(facts["leak_check"])
    if file:
        file.write_text(json.dumps(facts, indent=1) + "\n")
    if not facts["flat"]:
        raise SystemExit("the process grew, or a handle was not freed")


if __name__ == "__main__":
    main()

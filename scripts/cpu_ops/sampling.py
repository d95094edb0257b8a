"""What bench_ops.py times: runs of calls of each side, in turns, and the ceilings beside them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ingot.runtime import capi

ROTATED_BYTES = 512 << 20  # which no cache holds
PAGE = 4096
_LEAD_S, _RUN_S = 10e-3, 3e-3


class Side:
    """What calls took that are alike: measure(first, count) makes them, each with its number to
    choose a copy by, and returns the mean seconds of one."""

    def __init__(self, measure: Callable[[int, int], float]) -> None:
        self.sampled_s: list[float] = []
        self._measure = measure
        self._next = 0

    def sample(self) -> None:
        seconds = passed = self._run(1)
        while passed < _LEAD_S:
            count = math.ceil((_LEAD_S - passed) / seconds)
            seconds = self._run(count)
            passed += count * seconds
        self.sampled_s.append(self._run(math.ceil(_RUN_S / seconds)))

    def _run(self, count: int) -> float:
        self._next += count
        return self._measure(self._next - count, count)


def from_python(call: Callable[[int], Any]) -> Side:
    """Calls that the interpreter makes."""

    def measure(first: int, count: int) -> float:
        begun = time.perf_counter()
        for number in range(first, first + count):
            call(number)
        return (time.perf_counter() - begun) / count

    return Side(measure)


@dataclass
class Own:
    """Our op, called from C as in a model's step, and from Python as torch is."""

    in_step: Side
    from_python: Side


@dataclass
class Row:
    """One comparison."""

    ours: Own
    theirs: Side | Own
    bytes: int  # that a call must read
    flops: int
    factor: str = "float32"  # what is multiplied, one of roofline.FACTORS
    reading: Side | None = None  # calls that only read as many bytes
    ceiling_s: list[float] = field(default_factory=list)

    def sample(self, ceilings: Ceilings) -> None:
        self.reading = self.reading or ceilings.reading(self.bytes)
        before = ceilings.seconds(self)
        self.ours.in_step.sample()
        self.ceiling_s.append((before + ceilings.seconds(self)) / 2)
        self.reading.sample()
        if isinstance(self.theirs, Own):
            return self.theirs.in_step.sample()
        self.theirs.sample()
        self.ours.from_python.sample()

    def result(self) -> dict[str, Any]:
        assert self.reading, "sample first"
        in_step = self.ours.in_step
        seconds = statistics.median(in_step.sampled_s)
        if isinstance(self.theirs, Own):
            theirs_over_ours = median_share(self.theirs.in_step.sampled_s, in_step)
        else:
            theirs_over_ours = median_share(self.theirs.sampled_s, self.ours.from_python)
        return {
            "us": seconds * 1e6,
            "gb_s": self.bytes / seconds / 1e9,
            "gflop_s": self.flops / seconds / 1e9,
            "ceiling_share": median_share(self.ceiling_s, in_step),
            "reading_over_ours": median_share(self.reading.sampled_s, in_step),
            "torch_over_ours": theirs_over_ours,
        }


def median_share(seconds: list[float], of: Side) -> float:
    """The median of the quotients of what was measured in the same turn."""
    return statistics.median(a / b for a, b in zip(seconds, of.sampled_s, strict=True))


class Ceilings:
    """READ and the peak rates of this machine, by the instructions of the level that runs."""

    def __init__(self) -> None:
        self._library = capi.library()
        self._buffer = torch.ones(ROTATED_BYTES // 4)

    def seconds(self, row: Row) -> float:
        """The least time that the row's bytes and operations take; the larger of the two."""
        threads = torch.get_num_threads()
        address = self._buffer.data_ptr()
        flops = self._library.ingot_measure_peak(row.factor.encode(), threads)
        read = self._library.ingot_measure_memory(address, ROTATED_BYTES, threads)
        return max(row.bytes / read, row.flops / flops) / 1e9

    def reading(self, size: int) -> Side:
        """Calls that read `size` bytes each, one stretch of the buffer after the other."""
        threads = torch.get_num_threads()
        stretch = -(-size // PAGE) * PAGE
        count = max(1, ROTATED_BYTES // stretch)
        starts = [self._buffer.data_ptr() + i * stretch for i in range(count)]
        size = min(size, ROTATED_BYTES)

        def measure(first: int, calls: int) -> float:
            read = self._library.ingot_measure_memory
            rates = [read(starts[r % count], size, threads) for r in range(first, first + calls)]
            return statistics.fmean(size / rate / 1e9 for rate in rates)

        return Side(measure)

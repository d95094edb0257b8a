"""Times on a GPU: calls captured as one CUDA graph, so that launching costs nothing, and replayed
between two events; and what the device can do at most, measured alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

_READ_BYTES = 2 << 30
_MATRIX = 8192
CACHE_BYTES = 256 << 20  # what calls rotate through, larger than any GPU's last cache


@dataclass(frozen=True)
class Ceilings:
    """Bytes that a second copies, read and written together, and bfloat16 operations."""

    bytes_s: float
    flops_s: float

    def seconds(self, nbytes: int, flops: int) -> float:
        """The least time that these take; the larger of the two."""
        return max(nbytes / self.bytes_s, flops / self.flops_s)


def seconds(calls: Sequence[Callable[[], Any]], rounds: int = 5) -> float:
    """The median time of a call, over graphs of all of them one after the other."""
    stream, before = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(before)  # which may still be making what is called with
    with torch.cuda.stream(stream):
        for call in (*calls, *calls):  # libraries choose and allocate what they need
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            for call in calls:
                call()
    finally:
        torch.cuda.set_stream(before)  # a capture that fails leaves its own
    graph.replay()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / len(calls))
    return statistics.median(times)


def rotated(nbytes: int) -> int:
    """How many copies of so many bytes the cache does not hold; at most 64."""
    return max(1, min(64, -(-CACHE_BYTES // max(nbytes, 1))))


@cache
def ceilings() -> Ceilings:
    """Of the current device."""
    source = torch.zeros(_READ_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * _READ_BYTES / seconds([lambda: target.copy_(source)])
    a, b = (torch.randn(_MATRIX, _MATRIX, device="cuda").bfloat16() for _ in range(2))
    return Ceilings(copied, 2 * _MATRIX**3 / seconds([lambda: a @ b]))

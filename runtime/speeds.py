"""What this machine reaches, measured on the spot: `Hardware` for the roofline.

Reading, multiply-adds, what a call costs, and each kind of kernel that a model calls at the
sizes of a request: its traffic with the fewest rows of x, which bounds decode, and its arithmetic
with the most, which bounds prefill. Operands rotate through a buffer that no cache holds, as a
model's weights do. A package's own bytes are that buffer: two files' pages may lie in memory of
different speed (seen: 28 and 37 GB/s in turns), and stay there until they leave the page cache.
"""

from __future__ import annotations

import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from math import prod
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ..profiling.analysis import Request, Sizes, Subject, phases
from ..profiling.calls import Call, cost, evaluate
from ..profiling.roofline import (
    FACTORS,
    PANEL,
    QUANTISED_LINEARS,
    Hardware,
    Speed,
    op_name,
)
from ..profiling.steps import BLOCK_SIZE
from . import capi, ops
from .errors import NoSpace

_BUFFER_BYTES = 256 << 20
_MOST_MAPPED = 1 << 30  # of a package
_MOST_BYTES = 64 << 20  # of one weight
_BYTE = 0x11  # all of the buffer: in every dtype a small normal number
_SECONDS = 0.1  # of repeating each call


def measure(subject: Subject, request: Request, threads: int = 0) -> Hardware:
    """This machine, for the kernels that the request needs. threads 0: the cores that are free.

    Takes some seconds. Raises IngotError.
    """
    threads = threads or _free_cores()
    ops.set_threads(threads)
    buffers = _buffers(subject.package)
    steps = [sizes for of_phase in phases(subject.kind, request).values() for sizes in of_phase]
    steps.sort(key=lambda sizes: (sizes["T"], sizes["context"]))
    call_s, library = _call_seconds(buffers.cache), capi.library()
    few = _reached(subject, steps[0], buffers, call_s)
    many = few if steps[0] == steps[-1] else _reached(subject, steps[-1], buffers, call_s)
    address, size = buffers.weights.ctypes.data, buffers.weights.nbytes
    return Hardware(
        name=f"{_processor()}, {threads} threads, {ops.level()}",
        memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        read_gb_s=_rate(lambda: library.ingot_measure_memory(address, size, threads)),
        gflop_s={
            factor: _rate(partial(library.ingot_measure_peak, factor.encode(), threads))
            for factor in FACTORS
        },
        call_us=call_s * 1e6,
        kernels={kernel: Speed(few[kernel].gb_s, many[kernel].gflop_s) for kernel in few},
        sources=("measured by ingot analyze",),
    )


class _Buffers(NamedTuple):
    """Mapped files, as a package's weights are: with pages of another kind, kernels are up to a
    tenth faster or slower. They are only read. weights: any bytes; cache: normal numbers."""

    weights: ops.Array
    cache: ops.Array


def _buffers(package: Path | None) -> _Buffers:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes([_BYTE]) * _BUFFER_BYTES)
            file.flush()
            neutral = _mapped(file, _BUFFER_BYTES)
    except OSError as error:
        raise NoSpace(
            f"{_BUFFER_BYTES >> 20} MB to measure with cannot be written to {tempfile.gettempdir()}"
            f" ({error.strerror}); free them, or set TMPDIR"
        ) from error
    if package is None or package.stat().st_size < _BUFFER_BYTES:
        return _Buffers(neutral, neutral)
    with package.open("rb") as file:
        size = min(package.stat().st_size, _MOST_MAPPED) // mmap.PAGESIZE * mmap.PAGESIZE
        return _Buffers(_mapped(file, size), neutral)


def _mapped(file: IO[bytes], size: int) -> ops.Array:
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    return np.frombuffer(mmap.mmap(file.fileno(), size, flags, mmap.PROT_READ), np.uint8)


def _reached(subject: Subject, sizes: Sizes, buffers: _Buffers, call_s: float) -> dict[str, Speed]:
    """Of each kind of kernel, over its calls in one step; those of one shape are measured once.

    They are called in the order of the step, so that each finds what its neighbours leave behind.
    """
    alike: dict[tuple[str, str], list[Call]] = {}
    for call in subject.calls(sizes):
        if op_name(call) in _PREPARE:
            shapes = str((call.inputs, call.outputs))
            alike.setdefault((subject.kernel(call), shapes), []).append(call)
    calls = [same[0] for same in alike.values()]
    works = [_PREPARE[op_name(call)](call, sizes, subject, buffers) for call in calls]
    medians = _seconds([work.calls for work in works])
    sums: dict[str, list[float]] = {}
    for (kernel, _), same, work, seconds in zip(alike, alike.values(), works, medians, strict=True):
        share = cost(same[0], sizes).flops / work.flops  # a huge weight is measured in part
        found = sums.setdefault(kernel, [0.0, 0.0, 0.0])
        for i, one in enumerate((work.moved, work.flops, _without(call_s, seconds))):
            found[i] += one * share * len(same)
    return {
        kernel: Speed(moved / seconds / 1e9, flops / seconds / 1e9)
        for kernel, (moved, flops, seconds) in sums.items()
    }


def _without(call_s: float, seconds: float) -> float:
    """What a call's own work takes; no less than half of it, for calls as small as that."""
    return max(seconds - call_s, seconds / 2)


class _Work(NamedTuple):
    """Calls that do the same, each on operands elsewhere; the bytes and flops of one."""

    moved: float
    flops: float
    calls: Sequence[Callable[[], None]]


def _linear(call: Call, sizes: Sizes, subject: Subject, buffers: _Buffers) -> _Work:
    """The call's product with one copy of its weight after the other."""
    rows, columns = _shape(call.inputs[0], sizes)
    outputs, (panels, *inside) = _shape(call.outputs[0], sizes)[-1], _shape(call.inputs[1], sizes)
    op = op_name(call)
    dtype = np.dtype({"bfloat16": "uint16"}.get(call.inputs[1]["dtype"], call.inputs[1]["dtype"]))
    # A gate and what it gates are twice the outputs.
    gated = op.endswith("_activated") and panels >= 2 * (outputs // PANEL) > 0
    outputs = 2 * outputs if gated else outputs
    panel_bytes = prod(inside) * dtype.itemsize
    panels = max(1, min(panels, _MOST_BYTES // panel_bytes))
    outputs, size = min(outputs, panels * PANEL), panels * panel_bytes
    whole = buffers.weights[: len(buffers.weights) // size * size]
    weights = whole.view(dtype).reshape(-1, panels, *inside)
    x = np.ones((rows, columns), np.float32)
    out = np.empty((rows, outputs // 2 if gated else outputs), np.float32)
    rest: tuple[object, ...] = (None, outputs)
    if op in QUANTISED_LINEARS:
        rest = (None, None, None, outputs, subject.activation_bits)
    if op.endswith("_activated"):
        rest = (*rest, "silu", gated)
    calls = [ops.bind(op, x, weight, *rest, out=out) for weight in weights]
    return _Work(size + x.nbytes + out.nbytes, 2 * rows * outputs * columns, calls)


def _paged_attention(call: Call, sizes: Sizes, subject: Subject, buffers: _Buffers) -> _Work:
    """Sequences of one length, whose blocks lie in one part of the cache after the other."""
    tokens, heads, dim = _shape(call.inputs[0], sizes)
    (sequences,) = _shape(call.inputs[6], sizes)
    new, length = tokens // sequences, int(sizes["context"]) // sequences
    _, kv_heads, _ = _shape(call.inputs[1], sizes)
    block_bytes = int(call.inputs[3]["shape"][-1])
    whole = buffers.cache[: len(buffers.cache) // block_bytes * block_bytes]
    cache = whole.reshape(-1, block_bytes)
    blocks = min(-(-length // BLOCK_SIZE), len(cache) // sequences)
    length = min(length, blocks * BLOCK_SIZE)
    table = np.arange(sequences * blocks).reshape(sequences, blocks)
    q, out = (np.ones((tokens, heads, dim), np.float32) for _ in range(2))
    k, v = (np.ones((tokens, kv_heads, dim), np.float32) for _ in range(2))
    unwritten, starts = np.full(tokens, -1), np.arange(sequences + 1) * new
    lengths = np.full(sequences, length)
    assert subject.cache is not None
    options = (None, None, dim**-0.5, None, None, 0, subject.cache["dtype"])
    calls = [
        ops.bind(
            "paged_attention",
            *(q, k, v, cache, unwritten, starts, lengths, table + first, *options),
            out=out,
        )
        for first in range(0, len(cache) - table.size + 1, table.size)
    ]
    pairs = tokens * (2 * length - new + 1) / 2
    moved = sequences * length * block_bytes / BLOCK_SIZE
    return _Work(moved, 4 * pairs * heads * dim, calls)


def _attention(call: Call, sizes: Sizes, subject: Subject, buffers: _Buffers) -> _Work:
    tokens, heads, dim = _shape(call.inputs[0], sizes)
    sequences = _shape(call.inputs[3], sizes)[0] - 1
    q, k, v, out = (np.ones((tokens, heads, dim), np.float32) for _ in range(4))
    starts = np.arange(sequences + 1) * (tokens // sequences)
    calls = [ops.bind(op_name(call), q, k, v, starts, dim**-0.5, out=out)]
    return _Work(4 * q.nbytes, 4 * tokens * (tokens // sequences) * heads * dim, calls)


_PREPARE: dict[str, Callable[[Call, Sizes, Subject, _Buffers], _Work]] = {
    "linear": _linear,
    "linear_activated": _linear,
    "linear_many": _linear,
    "linear_many_activated": _linear,
    "linear_w4": _linear,
    "linear_w4_activated": _linear,
    "linear_w8": _linear,
    "linear_w8_activated": _linear,
    "paged_attention": _paged_attention,
    "attention": _attention,
    "attention_bf16": _attention,
}


def _call_seconds(buffer: ops.Array) -> float:
    """Of an op that does next to nothing, with all threads, after one that leaves nothing of it in
    the caches, as in a step."""
    x, weight = np.ones((1, PANEL), np.float32), np.ones((4, PANEL, PANEL), np.float32)
    out = np.empty((1, 4 * PANEL), np.float32)
    small = ops.bind("linear", x, weight, None, 4 * PANEL, out=out)
    wide = buffer[: 4 << 20].view(np.float32).reshape(-1, 256, PANEL)
    row, result = np.ones((1, 256), np.float32), np.empty((1, len(wide) * PANEL), np.float32)
    large = ops.bind("linear", row, wide, None, len(wide) * PANEL, out=result)
    return _seconds([[large], [small]])[1]


def _seconds(works: Sequence[Sequence[Callable[[], None]]]) -> list[float]:
    """The median time of each work's calls. The works take turns, and so do their calls; the first
    two rounds warm up."""
    taken: list[list[float]] = [[] for _ in works]
    begun = time.perf_counter()
    for number in count():
        for work, times in zip(works, taken, strict=True):
            before = time.perf_counter()
            work[number % len(work)]()
            times.append(time.perf_counter() - before)
        if number > 5 and time.perf_counter() - begun > _SECONDS * len(works):
            break
    return [statistics.median(times[2:]) for times in taken]


def _rate(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(7))


def _shape(fact: dict[str, object], sizes: Sizes) -> tuple[int, ...]:
    shape = fact["shape"]
    assert isinstance(shape, list)
    return tuple(int(evaluate(str(size), sizes)) for size in shape)


def _free_cores() -> int:
    """As the runtime counts them (runtime/csrc/cpu.cpp): those on which nothing else runs now."""
    running = Path("/proc/stat").read_text().partition("procs_running ")[2].split()[0]
    free = (os.cpu_count() or 1) - (int(running) - 1)
    return min(max(free, 1), len(os.sched_getaffinity(0)))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "this machine"

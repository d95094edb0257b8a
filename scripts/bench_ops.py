"""Every op against what the machine can do and against torch, interleaved in one run.

    python scripts/bench_ops.py [--threads N] [--rounds R] [--only TEXT] [--json]

A row is a call: the median time, the ceiling that it runs against (memory READ for little work a
byte, the peak of multiplying such factors for much), the share of that ceiling, the time of calls
that do nothing but read as many bytes over ours, and torch's time over ours for the same arithmetic
(above 1: ours is faster). Of paged attention "against in order" it is our own time where blocks lie
as in a cache without pages (below 1: pages take longer).

A sample is a run of calls of one side, one behind the other as in a model's step: calls for 10 ms
that are not timed, then for 3 ms that are, at least one of each. The calls behind something else
take longer: threads sleep, AMX does, clocks differ, and for 6 to 10 ms behind tiles at their peak
memory is read more slowly. Runs of all sides take turns, with the ceilings measured before and
after ours, so load on a shared machine touches all alike; shares and quotients are the medians of
those of each turn.

Weights and caches lie in huge pages, as those of packages do, caches at the beginning of a page, as
the runtime's, and no call finds its own in a cache: each reads another copy, and what was read
since that was last read is 512 MiB or more. So is what READ reads: of 256 MiB a last cache of
480 MB, of which others have their share, gave some back. READ has no calls to begin and end, so
short ones do not reach it: it says what the memory could do, the calls that read as many bytes what
a call could. All calls write to the same outputs, as a step's write where the step before did: who
writes to a page first waits for the system to clear it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import click
import torch
import torch.nn.functional as F

import ingot.custom_ops  # noqa: F401  (registers the ops)
from ingot.custom_ops.attention_cases import Batch
from ingot.custom_ops.declare import OPS
from ingot.custom_ops.eager import bind
from ingot.custom_ops.kv_layout import BLOCK, ITEM_BYTES, bytes_per_block
from ingot.custom_ops.linear import pack_linear
from ingot.custom_ops.quantised_layout import MULTIPLIED, Layout
from ingot.custom_ops.quantised_linear import random_weight
from ingot.runtime import capi

_ROTATED_BYTES = 512 << 20
_PAGE = 4096
_LEAD_S, _RUN_S = 10e-3, 3e-3


class Side:
    """What calls took that are alike, of which each takes its number, to choose a copy."""

    def __init__(self, call: Callable[[int], Any]) -> None:
        self.sampled_s: list[float] = []
        self._call = call
        self._next = 0

    def sample(self) -> None:
        self._run(_LEAD_S)
        self.sampled_s.append(self._run(_RUN_S))

    def _run(self, seconds: float) -> float:
        """Calls for so long, at least one; returns the seconds a call."""
        first, begun, passed = self._next, time.perf_counter(), 0.0
        while passed < seconds:
            self._call(self._next)
            self._next += 1
            passed = time.perf_counter() - begun
        return passed / (self._next - first)


@dataclass
class Row:
    """One comparison."""

    ours: Side
    theirs: Side
    bytes: int  # that a call must read
    flops: int
    factor: str = "float32"  # what is multiplied, one of roofline.FACTORS
    reading: Side | None = None  # calls that only read as many bytes
    ceiling_s: list[float] = field(default_factory=list)

    def sample(self, ceilings: Ceilings) -> None:
        self.reading = self.reading or ceilings.reading(self.bytes)
        before = ceilings.seconds(self)
        self.ours.sample()
        self.ceiling_s.append((before + ceilings.seconds(self)) / 2)
        self.reading.sample()
        self.theirs.sample()

    def result(self) -> dict[str, Any]:
        assert self.reading, "sample first"
        ours = statistics.median(self.ours.sampled_s)
        return {
            "us": ours * 1e6,
            "gb_s": self.bytes / ours / 1e9,
            "gflop_s": self.flops / ours / 1e9,
            "ceiling_share": self._median_over_ours(self.ceiling_s),
            "reading_over_ours": self._median_over_ours(self.reading.sampled_s),
            "torch_over_ours": self._median_over_ours(self.theirs.sampled_s),
        }

    def _median_over_ours(self, seconds: list[float]) -> float:
        pairs = zip(seconds, self.ours.sampled_s, strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)


class Ceilings:
    """READ and the peak rates of this machine, by the instructions of the level that runs."""

    def __init__(self) -> None:
        self._library = capi.library()
        self._buffer = torch.ones(_ROTATED_BYTES // 4)

    def seconds(self, row: Row) -> float:
        """The least time that the row's bytes and operations take; the larger of the two."""
        threads = torch.get_num_threads()
        address = self._buffer.data_ptr()
        flops = self._library.ingot_measure_peak(row.factor.encode(), threads)
        for _ in range(2):  # the first leads in
            read = self._library.ingot_measure_memory(address, _ROTATED_BYTES, threads)
        return max(row.bytes / read, row.flops / flops) / 1e9

    def reading(self, size: int) -> Side:
        """Calls that read `size` bytes each, one stretch of the buffer after the other."""
        threads = torch.get_num_threads()
        stretch = -(-size // _PAGE) * _PAGE
        count = max(1, _ROTATED_BYTES // stretch)
        starts = [self._buffer.data_ptr() + i * stretch for i in range(count)]
        read = self._library.ingot_measure_memory
        return Side(lambda r: read(starts[r % count], min(size, _ROTATED_BYTES), threads))


def rotating(op: str, calls: Sequence[tuple[Any, ...]]) -> Side:
    """Our op on one list of arguments after the other, into the same outputs."""
    results: list[torch.Tensor] = []
    bound = [bind(OPS[op].schema, arguments, results) for arguments in calls]
    return Side(lambda r: bound[r % len(bound)]())


def copies(
    tensor: torch.Tensor,
    share: int = 1,
    copy: Callable[[torch.Tensor], torch.Tensor] = torch.clone,
) -> list[torch.Tensor]:
    """As many as fill the rotated bytes, of which there are `share` users at once."""
    size = tensor.numel() * tensor.element_size() * share
    return [copy(tensor) for _ in range(max(2, min(256, _ROTATED_BYTES // max(size, 1) + 1)))]


def linear(op: str, rows: int, outputs: int, inputs: int, dtype: torch.dtype) -> Row:
    x = torch.randn(rows, inputs)
    weight = (torch.randn(outputs, inputs) / inputs**0.5).to(dtype)
    packed, plain = copies(pack_linear(weight)), copies(weight)
    typed = x.to(dtype)
    return Row(
        rotating(op, [(x, weight, None, outputs) for weight in packed]),
        Side(lambda r: F.linear(typed, plain[r % len(plain)])),
        packed[0].numel() * packed[0].element_size() + rows * (inputs + outputs) * 4,
        2 * rows * outputs * inputs,
        name_of(dtype),
    )


LAYOUTS = (
    Layout(4, 32, torch.float16, zero_points=False),  # of imported checkpoints
    Layout(4, 128, torch.float16, zero_points=False, multipliers=True),  # of groups of 32
    Layout(4, 128, torch.float16, zero_points=False),
    Layout(8, 128, torch.float16, zero_points=False),
)


def quantised(rows: int, outputs: int, inputs: int, layout: Layout, activation_bits: int) -> Row:
    """Against torch's own int4 and int8 kernels, or its bfloat16 where those are slower."""
    x = torch.randn(rows, inputs)
    generator = torch.Generator().manual_seed(0)
    weight = random_weight(outputs, inputs, layout, generator)
    packed = copies(weight)
    calls = [(x, copy, None, None, None, outputs, activation_bits) for copy in packed]
    return Row(
        rotating(f"linear_w{layout.bits}", calls),
        Side(torch_quantised(x, outputs, layout)),
        weight.numel() + rows * (inputs + outputs) * 4,
        2 * rows * outputs * inputs,
        "int8" if activation_bits == 8 else "bfloat16",
    )


def torch_quantised(x: torch.Tensor, outputs: int, layout: Layout) -> Callable[[int], Any]:
    """torch's product of the same shape: of packed int4 or int8 up to 4 rows, else of bfloat16."""
    typed, inputs = x.bfloat16(), x.shape[1]
    if x.shape[0] > 4:
        plain = copies(torch.randn(outputs, inputs).bfloat16())
        return lambda r: F.linear(typed, plain[r % len(plain)])
    if layout.bits == 8:
        codes = copies(torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8))
        scale = torch.ones(outputs, dtype=torch.bfloat16)
        return lambda r: torch._weight_int8pack_mm(typed, codes[r % len(codes)], scale)
    size = layout.scale_group
    nibbles = torch.randint(16, (outputs, inputs), dtype=torch.int32)
    packed = copies(torch._convert_weight_to_int4pack_for_cpu(nibbles, 1))
    scales = torch.ones(inputs // size, outputs, 2, dtype=torch.bfloat16)
    product = torch._weight_int4pack_mm_for_cpu
    return lambda r: product(typed, packed[r % len(packed)], size, scales)


def paged(batch: Batch) -> Row:
    """Against SDPA over the same sequences, one after the other, keys and values contiguous."""
    heads, kv_heads, dim = batch.q_heads, batch.kv_heads, batch.dim
    calls = []
    for past, new in batch.sequences:
        q = torch.randn(1, heads, new, dim)
        shape, users = (1, kv_heads, past + new, dim), 2 * len(batch.sequences)
        k, v = (copies(torch.randn(shape), users) for _ in range(2))
        mask = None
        if past and new > 1:
            mask = torch.ones(new, past + new, dtype=torch.bool).tril(past)
        calls.append((q, k, v, mask, past == 0 and new > 1))

    def theirs(r: int) -> None:
        for q, k, v, mask, causal in calls:
            key, value = k[r % len(k)], v[r % len(v)]
            F.scaled_dot_product_attention(
                q, key, value, attn_mask=mask, is_causal=causal, enable_gqa=heads != kv_heads
            )

    return attending(batch, Side(theirs))


def paged_or_not(batch: Batch) -> Row:
    """Against our own over blocks that lie in order."""
    return attending(batch, own_attention(replace(batch, in_order=True)))


def attending(batch: Batch, theirs: Side) -> Row:
    pairs = sum(new * (2 * past + new + 1) // 2 for past, new in batch.sequences)
    tokens = sum(past + new for past, new in batch.sequences)
    return Row(
        own_attention(batch),
        theirs,
        tokens * bytes_per_block(batch.kv_heads, batch.dim, batch.kv_dtype) // BLOCK,
        4 * pairs * batch.q_heads * batch.dim,
        "float32" if batch.kv_dtype == "float32" else "bfloat16",
    )


def own_attention(batch: Batch) -> Side:
    arguments = batch.make(torch.Generator().manual_seed(0))
    caches = copies(arguments[3], copy=on_a_page)
    return rotating(
        "paged_attention", [(*arguments[:3], cache, *arguments[4:]) for cache in caches]
    )


def on_a_page(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that begins where a page does."""
    size = tensor.numel() * tensor.element_size()
    room = torch.empty(size + _PAGE, dtype=torch.uint8)
    copy = room[-room.data_ptr() % _PAGE :][:size].view(tensor.dtype).view_as(tensor)
    return copy.copy_(tensor)


def bidirectional(op: str, batch: int, length: int, heads: int, dim: int) -> Row:
    """Against SDPA in what the op may round to."""
    q, k, v = (torch.randn(batch * length, heads, dim) for _ in range(3))
    starts = torch.arange(batch + 1) * length
    dtype = torch.float32 if op == "attention" else torch.bfloat16
    split = [
        x.to(dtype).view(batch, length, heads, dim).transpose(1, 2).contiguous() for x in (q, k, v)
    ]
    return Row(
        rotating(op, [(q, k, v, starts, dim**-0.5)]),
        Side(lambda r: F.scaled_dot_product_attention(*split)),
        3 * q.numel() * 4,
        4 * batch * heads * length * length * dim,
        name_of(dtype),
    )


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rows(only: str) -> Iterator[tuple[str, Row]]:
    """Those whose name holds `only`, one at a time: each has copies of its own."""
    return ((name, make()) for name, make in _makers() if only in name)


def _makers() -> Iterator[tuple[str, Callable[[], Row]]]:
    products = [
        ("linear", m, n, k, dtype)
        for dtype in (torch.float32, torch.bfloat16)
        for n, k in ((2560, 2048), (2048, 5632), (11264, 2048))
        for m in (1, 4, 32, 512)
    ]
    products += [
        (op, m, n, k, torch.float32)
        for op in ("linear", "linear_many")
        for m, n, k in ((128, 1536, 384), (128, 384, 1536), (1576, 3072, 768), (1576, 768, 3072))
    ]
    for op, m, n, k, dtype in products:
        yield f"{op} {m}x{n}x{k} {name_of(dtype)}", partial(linear, op, m, n, k, dtype)
    for layout in LAYOUTS:
        groups = f"g{layout.group_size}{f'.m{MULTIPLIED}' * layout.multipliers}"
        for activation_bits in (8, 16):
            for n, k in ((2560, 2048), (2048, 5632), (11264, 2048)):
                for m in (1, 2, 4, 32, 512):
                    name = f"linear_w{layout.bits} {m}x{n}x{k} {groups} a{activation_bits}"
                    yield name, partial(quantised, m, n, k, layout, activation_bits)
    llama: dict[str, Any] = {"q_heads": 32, "kv_heads": 4, "dim": 64}
    for kv_dtype in ITEM_BYTES:
        for name, sequences in {
            "prefill 512": [(0, 512)],
            "prefill 2048": [(0, 2048)],
            "decode at 512": [(511, 1)],
            "decode at 4096": [(4095, 1)],
            "decode 8 at 1024": [(1023, 1)] * 8,
        }.items():
            batch = Batch(name, sequences, kv_dtype=kv_dtype, **llama)
            yield f"paged_attention {name} {kv_dtype}", partial(paged, batch)
            yield (
                f"paged_attention {name} {kv_dtype} against in order",
                partial(paged_or_not, batch),
            )
    for op in ("attention", "attention_bf16"):
        for b, length, heads, dim in (
            (1, 128, 12, 32),
            (8, 128, 12, 32),
            (1, 197, 12, 64),
            (8, 197, 12, 64),
        ):
            yield (
                f"{op} {b}x{length} {heads} heads of {dim}",
                partial(bidirectional, op, b, length, heads, dim),
            )


@click.command()
@click.option("--threads", default=0, help="0: torch's default.")
@click.option("--rounds", default=15, show_default=True)
@click.option("--only", default="", help="Rows whose name holds this.")
@click.option("--json", "as_json", is_flag=True)
def main(threads: int, rounds: int, only: str, as_json: bool) -> None:
    if threads:
        torch.set_num_threads(threads)
    ceilings, results = Ceilings(), []
    for name, row in rows(only):
        for _ in range(rounds):
            row.sample(ceilings)
        results.append({"name": name, **row.result()})
        if not as_json:
            show(results[-1], header=len(results) == 1)
    if as_json:
        click.echo(json.dumps({"threads": torch.get_num_threads(), "rows": results}))


def show(result: dict[str, Any], header: bool) -> None:
    if header:
        click.echo(
            f"{'':44} {'us':>9} {'GB/s':>7} {'GFLOP/s':>8} {'of ceiling':>10} read/ours torch/ours"
        )
    click.echo(
        f"{result['name']:44} {result['us']:9.1f} {result['gb_s']:7.1f} {result['gflop_s']:8.0f} "
        f"{result['ceiling_share']:10.0%} {result['reading_over_ours']:9.2f} "
        f"{result['torch_over_ours']:10.2f}"
    )


def share_one_openmp() -> None:
    """Start again with one OpenMP library for torch and us: two teams spin against each other.

    And with torch's tensors in huge pages, READ's among them: packages map weights by such pages.
    """
    if "libgomp" not in os.environ.get("LD_PRELOAD", ""):
        found = subprocess.run(
            ["g++", "-print-file-name=libgomp.so.1"], capture_output=True, text=True, check=True
        )
        environment = {
            **os.environ,
            "LD_PRELOAD": found.stdout.strip(),
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        }
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)


if __name__ == "__main__":
    share_one_openmp()
    with torch.no_grad():
        main()

"""The ops at the shapes of Llama 3 8B and OLMo 2, beside torch's kernels for the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ingot.custom_ops.declare import OPS
from ingot.custom_ops.eager import bind
from ingot.custom_ops.kv_layout import BLOCK, bytes_per_block
from ingot.custom_ops.linear import PANEL
from ingot.custom_ops.quantised_layout import MULTIPLIED_GROUP, Layout

from .timing import rotated, seconds

Calls = Sequence[Callable[[], Any]]
_BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
)
# Outputs and inputs of the linears of Llama 3 8B.
LINEARS = {
    "qkv": (6144, 4096),
    "o": (4096, 4096),
    "gate_up": (28672, 4096),
    "down": (4096, 14336),
    "head": (128256, 4096),
}
# Query heads and KV heads of 128 dimensions.
HEADS = {
    "llama-3-8b": (32, 8),
    "olmo-2-7b": (32, 32),
    "olmo-2-13b": (40, 40),
    "olmo-2-32b": (40, 8),
}
_DIM = 128


@dataclass(frozen=True)
class Row:
    """A call: what it must move and compute; how its calls are made, and others' of the same."""

    name: str
    bytes: int
    flops: int
    ours: Callable[[], Calls]
    others: dict[str, Callable[[], Calls]] = field(default_factory=dict)

    def measure(self, bytes_s: float, flops_s: float) -> dict[str, Any]:
        """Its row of the table, against the ceilings; `not_run`: what of torch's cannot be run."""
        found: dict[str, Any] = {"name": self.name}
        ours = seconds(self.ours())
        found |= {
            "us": ours * 1e6,
            "gb_s": self.bytes / ours / 1e9,
            "tflop_s": self.flops / ours / 1e12,
            "ceiling_share": max(self.bytes / bytes_s, self.flops / flops_s) / ours,
        }
        times = {}
        for name, make in self.others.items():
            try:
                times[name] = seconds(make())
            except Exception as error:  # no such kernel for these shapes, on this device
                found.setdefault("not_run", {})[name] = sentence(error)
        if times:
            best = min(times, key=times.__getitem__)
            found |= {"best_other": best, "other_over_ours": times[best] / ours}
        return found


def sentence(error: Exception) -> str:
    """Its first line, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def linear(name: str, rows: int, bits: int) -> Row:
    """bits: 16 is bfloat16; 4 and 8 as `int4` and `int8` make them. Beside cuBLAS's bfloat16."""
    outputs, inputs = LINEARS[name]
    op, rest = f"linear_w{bits}", (None, None, None, outputs, 8)
    if bits == 16:
        op, rest = "linear", (None, outputs)
    shape, dtype = packed_shape(outputs, inputs, bits)
    size = math.prod(shape) * dtype.itemsize

    def ours() -> Calls:
        x = torch.randn(rows, inputs, device="cuda")
        weights = [_random(shape, dtype) for _ in range(rotated(size))]
        return [partial(_call, op, (x, weight, *rest)) for weight in weights]

    def cublas() -> Calls:
        x = torch.randn(rows, inputs, device="cuda").bfloat16()
        plain, copies = (outputs, inputs), rotated(2 * outputs * inputs)
        return [partial(F.linear, x, _random(plain, torch.bfloat16)) for _ in range(copies)]

    traffic = size + 4 * rows * (inputs + outputs)
    title = f"{op} {name} {rows}x{outputs}x{inputs}"
    return Row(title, traffic, 2 * rows * outputs * inputs, ours, {"cublas bf16": cublas})


def packed_shape(outputs: int, inputs: int, bits: int) -> tuple[tuple[int, ...], torch.dtype]:
    """Of a weight; bits: as for `linear`."""
    if bits == 16:
        return (outputs // PANEL, inputs // 2, PANEL, 2), torch.bfloat16
    layout = Layout(bits, MULTIPLIED_GROUP, torch.float16, False, multipliers=bits == 4)
    return (outputs // PANEL, inputs // MULTIPLIED_GROUP, layout.block_bytes), torch.uint8


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros would be quicker: a GPU clocks higher on them."""
    if dtype == torch.uint8:
        return torch.randint(256, shape, dtype=dtype, device="cuda")
    return torch.randn(shape, dtype=dtype, device="cuda")


def attention(model: str, sequences: int, past: int, new: int, flex: bool = False) -> Row:
    """Of sequences alike, `new` tokens each after `past`; new 1 is decode, past 0 prefill. Beside
    SDPA, or FlexAttention, which is compiled for each shape: that takes its time."""
    heads, kv_heads = HEADS[model]
    length = past + new
    pages, block = -(-length // BLOCK), bytes_per_block(kv_heads, _DIM, "bfloat16")
    size = sequences * pages * block

    def ours() -> Calls:
        copies = rotated(size)
        sizes = (heads, kv_heads, kv_heads)
        q, k, v = (torch.randn(sequences * new, n, _DIM, device="cuda") for n in sizes)
        table = torch.randperm(sequences * pages, device="cuda").view(sequences, pages)
        places = torch.arange(past, length, device="cuda")
        slots = (table[:, places // BLOCK] * BLOCK + places % BLOCK).flatten()
        starts = torch.arange(sequences + 1, device="cuda") * new
        lengths = torch.full((sequences,), length, device="cuda")
        caches = []
        for _ in range(copies):
            values = _random((sequences * pages, block // 2), torch.bfloat16)
            caches.append(values.view(torch.uint8))
        fixed = (slots, starts, lengths, table, None, None, _DIM**-0.5, None, None, 0, "bfloat16")
        return [partial(_call, "paged_attention", (q, k, v, cache, *fixed)) for cache in caches]

    def gathered() -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        shape = (sequences, kv_heads, length, _DIM)
        q = torch.randn(sequences, heads, new, _DIM, device="cuda", dtype=torch.bfloat16)
        copies = range(rotated(size))
        make = partial(torch.randn, shape, device="cuda", dtype=torch.bfloat16)
        return q, [(make(), make()) for _ in copies]

    def sdpa(backend: SDPBackend) -> Calls:
        q, caches = gathered()

        def call(k: torch.Tensor, v: torch.Tensor) -> None:
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(
                    q, k, v, is_causal=past == 0, enable_gqa=heads != kv_heads
                )

        return [partial(call, k, v) for k, v in caches]

    def flexible() -> Calls:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        q, caches = gathered()
        mask = None
        if past == 0:
            mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, new, new)
        torch.compiler.reset()  # else only so many shapes are compiled
        compiled = torch.compile(flex_attention, dynamic=False)
        gqa = heads != kv_heads
        return [partial(compiled, q, k, v, block_mask=mask, enable_gqa=gqa) for k, v in caches]

    pairs = sequences * new * (2 * past + new + 1) // 2
    others = {f"sdpa {b.name.partition('_')[0].lower()}": partial(sdpa, b) for b in _BACKENDS}
    if flex:
        others = {"flex": flexible}
    traffic = sequences * length * block // BLOCK + 8 * sequences * new * heads * _DIM
    what = f"decode {sequences} at {length}" if new == 1 else f"prefill {sequences} of {new}"
    title = f"{'flex beside' if flex else 'paged_attention'} {model} {what}"
    return Row(title, traffic, 4 * pairs * heads * _DIM, ours, others)


def _call(op: str, arguments: tuple[Any, ...]) -> None:
    bind(OPS[op].schema, arguments)()


def rows(only: str = "") -> Iterator[Row]:
    """Those whose name holds `only`: what matters most comes first, for time may run out."""
    made = [attention("llama-3-8b", n, c - 1, 1) for n in (1, 8, 64) for c in (2048, 8192, 32768)]
    made += [linear(name, 1, bits) for bits in (4, 8, 16) for name in LINEARS]
    made += [attention("llama-3-8b", 1, 0, n) for n in (4096, 8192, 16384)]
    made += [attention(model, 1, 0, 4096) for model in HEADS if model != "llama-3-8b"]
    made += [attention(model, 16, 4095, 1) for model in HEADS]
    many = [(m, bits) for m in (8, 512, 4096) for bits in (4, 8, 16)]
    made += [linear(name, m, bits) for m, bits in many for name in LINEARS]
    made += [attention("llama-3-8b", n, 8191, 1, flex=True) for n in (1, 8, 64)]
    made += [attention(model, 1, 0, 4096, flex=True) for model in HEADS]
    return (row for row in made if only in row.name)

"""What bench_ops.py compares: our ops at models' shapes with torch's, each on copies of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

import ingot.custom_ops  # noqa: F401  (registers the ops)
from ingot.custom_ops.attention_cases import Batch
from ingot.custom_ops.declare import OPS
from ingot.custom_ops.eager import bind, timed
from ingot.custom_ops.kv_layout import BLOCK, ITEM_BYTES, bytes_per_block
from ingot.custom_ops.linear import pack_linear
from ingot.custom_ops.quantised_layout import MULTIPLIED, Layout
from ingot.custom_ops.quantised_linear import random_weight

from .sampling import PAGE, ROTATED_BYTES, Own, Row, Side, from_python


def rotating(op: str, calls: Sequence[tuple[Any, ...]]) -> Own:
    """Our op on one list of arguments after the other, into the same outputs."""
    results: list[torch.Tensor] = []
    bound = [bind(OPS[op].schema, arguments, results) for arguments in calls]
    in_step = timed(OPS[op].schema, calls, results)
    return Own(Side(in_step), from_python(lambda r: bound[r % len(bound)]()))


def copies(
    tensor: torch.Tensor,
    share: int = 1,
    copy: Callable[[torch.Tensor], torch.Tensor] = torch.clone,
) -> list[torch.Tensor]:
    """As many as fill the rotated bytes, of which there are `share` users at once."""
    size = tensor.numel() * tensor.element_size() * share
    return [copy(tensor) for _ in range(max(2, min(256, ROTATED_BYTES // max(size, 1) + 1)))]


def linear(op: str, rows: int, outputs: int, inputs: int, dtype: torch.dtype) -> Row:
    x = torch.randn(rows, inputs)
    weight = (torch.randn(outputs, inputs) / inputs**0.5).to(dtype)
    packed, plain = copies(pack_linear(weight)), copies(weight)
    typed = x.to(dtype)
    return Row(
        rotating(op, [(x, weight, None, outputs) for weight in packed]),
        from_python(lambda r: F.linear(typed, plain[r % len(plain)])),
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
        from_python(torch_quantised(x, outputs, layout)),
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
    """Against SDPA of the same sequences in float32, one by one, keys and values contiguous."""
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

    return attending(batch, from_python(theirs))


def paged_or_not(batch: Batch) -> Row:
    """Against our own over blocks that lie in order."""
    return attending(batch, own_attention(replace(batch, in_order=True)))


def attending(batch: Batch, theirs: Side | Own) -> Row:
    pairs = sum(new * (2 * past + new + 1) // 2 for past, new in batch.sequences)
    tokens = sum(past + new for past, new in batch.sequences)
    return Row(
        own_attention(batch),
        theirs,
        tokens * bytes_per_block(batch.kv_heads, batch.dim, batch.kv_dtype) // BLOCK,
        4 * pairs * batch.q_heads * batch.dim,
        "float32" if batch.kv_dtype == "float32" else "bfloat16",
    )


def own_attention(batch: Batch) -> Own:
    arguments = batch.make(torch.Generator().manual_seed(0))
    caches = copies(arguments[3], copy=on_a_page)
    return rotating(
        "paged_attention", [(*arguments[:3], cache, *arguments[4:]) for cache in caches]
    )


def on_a_page(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that begins where a page does."""
    size = tensor.numel() * tensor.element_size()
    room = torch.empty(size + PAGE, dtype=torch.uint8)
    copy = room[-room.data_ptr() % PAGE :][:size].view(tensor.dtype).view_as(tensor)
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
        from_python(lambda r: F.scaled_dot_product_attention(*split)),
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

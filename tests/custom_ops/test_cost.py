"""What ops cost: by hand, as formulas, and never forgotten."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import sympy
import torch

from ingot.custom_ops.cost import Cost, Load
from ingot.custom_ops.declare import OPS, declare
from ingot.custom_ops.kv_layout import bytes_per_block
from ingot.custom_ops.linear import pack_linear
from ingot.custom_ops.quantised_layout import Layout


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def integers(*shape: int) -> torch.Tensor:
    return meta(*shape, dtype=torch.int64)


def cost(op: str, load: Load, *arguments: Any) -> Cost:
    return OPS[op].cost(load, *arguments)


def test_linear() -> None:
    weight = pack_linear(meta(100, 33, dtype=torch.bfloat16))  # as 128 x 34
    found = cost("linear", Load(), meta(5, 33), weight, meta(100), 100)
    assert found == (2 * 5 * 33 * 100, 5 * 33 * 4 + 128 * 34 * 2 + 100 * 4, 5 * 100 * 4)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_linear(bits: int) -> None:
    layout = Layout(bits, 32, torch.float16, zero_points=True)
    weight = meta(2, 4, layout.block_bytes, dtype=torch.uint8)  # 128 x 128
    found = cost(f"linear_w{bits}", Load(), meta(3, 128), weight, None, meta(128), None, 100, 8)
    packed = 128 * 128 * bits // 8 + 128 * 4 * (2 + 1)
    assert found == (2 * 3 * 128 * 100, 3 * 128 * 4 + packed + 128 * 4, 3 * 100 * 4)


def test_embedding() -> None:
    weight = pack_linear(meta(1000, 40, dtype=torch.bfloat16))
    found = cost("embedding", Load(), integers(7), weight, 40)
    assert found == (0, 7 * 8 + 7 * 40 * 2, 7 * 40 * 4)


def test_quantised_embedding() -> None:
    layout = Layout(4, 64, torch.float16, zero_points=False)
    weight = meta(16, 2, layout.block_bytes, dtype=torch.uint8)  # 1024 x 128
    found = cost("quantised_embedding", Load(), integers(7), weight, 128, 4)
    assert found == (2 * 7 * 128, 7 * 8 + 7 * (64 + 2 * 2), 7 * 128 * 4)


def test_attention() -> None:
    arguments = (meta(12, 6, 40), meta(12, 2, 40), meta(12, 2, 40), integers(3), 1.0)
    read, written = (12 * 6 + 2 * 12 * 2) * 40 * 4 + 3 * 8, 12 * 6 * 40 * 4
    ragged = 3 * 3 + 9 * 9
    assert cost("attention", Load(pairs=ragged), *arguments) == (4 * ragged * 240, read, written)
    alike = 2 * 6 * 6
    assert cost("attention", Load(), *arguments) == (4 * alike * 240, read, written)


def paged(
    tokens: int, sequences: int, window: int | None = None, sinks: int = 0, kv_dtype: str = "int8"
) -> tuple[Any, ...]:
    """Arguments of 8 query heads over 2, of size 64, 3 blocks in the table, 32 pairs rotated."""
    cache = meta(10, bytes_per_block(2, 64, kv_dtype), dtype=torch.uint8)
    numbers = (0.125, window, None, sinks, kv_dtype)
    table = integers(sequences, 3)
    keys = (meta(tokens, 2, 64),) * 2
    places = (integers(tokens), integers(sequences + 1), integers(sequences), table)
    return meta(tokens, 8, 64), *keys, cache, *places, *(meta(tokens, 32),) * 2, *numbers


@pytest.mark.parametrize(("kv_dtype", "per_token"), [("int8", 2 * 2 * 68), ("bfloat16", 512)])
def test_paged_attention(kv_dtype: str, per_token: int) -> None:
    """Two sequences: 4 tokens of a prompt of 4, and one after 40."""
    load = Load(context=4 + 41, pairs=1 + 2 + 3 + 4 + 41)
    found = cost("paged_attention", load, *paged(5, 2, kv_dtype=kv_dtype))
    tensors = 5 * (8 + 2 + 2) * 64 * 4 + (5 + 3 + 2 + 2 * 3) * 8 + 2 * 5 * 32 * 4
    assert found.flops == 4 * 64 * 8 * 51
    assert found.read_bytes == tensors + 45 * per_token
    assert found.written_bytes == 5 * 8 * 64 * 4 + 5 * per_token


def seen(lengths: list[tuple[int, int]], window: int, sinks: int = 0) -> tuple[int, int]:
    """(context, pairs) of sequences of (past, new) tokens, counted one by one."""
    pairs = keys = 0
    for past, new in lengths:
        visible = [
            {p for p in range(last + 1) if p > last - window or p < sinks}
            for last in range(past, past + new)
        ]
        pairs += sum(map(len, visible))
        keys += len(set().union(*visible))
    return keys, pairs


@pytest.mark.parametrize(
    ("lengths", "window", "sinks"),
    [
        ([(0, 20)], 8, 0),
        ([(0, 20)] * 3, 8, 2),
        ([(30, 6)] * 2, 8, 0),
        ([(5, 6)] * 2, 8, 0),
        ([(50, 1)] * 4, 8, 3),
        ([(3, 1)] * 4, 8, 3),
        ([(0, 20)], 100, 0),
    ],
)
def test_a_sliding_window(lengths: list[tuple[int, int]], window: int, sinks: int) -> None:
    tokens, sequences = sum(new for _, new in lengths), len(lengths)
    load, far = Load(*seen(lengths, 10**6)), paged(tokens, sequences)
    context, pairs = seen(lengths, window, sinks)
    near = cost("paged_attention", load, *paged(tokens, sequences, window, sinks))
    assert near.flops == 4 * 64 * 8 * pairs
    whole = cost("paged_attention", load, *far)
    assert near.read_bytes == whole.read_bytes - (load.context - context) * 2 * 2 * 68


def test_formulas() -> None:
    """Sizes may be sympy's: what comes out is the same as of the numbers."""
    t, b, context, pairs = sympy.symbols("T B context pairs")
    sizes = {t: 12, b: 2, context: 90, pairs: 500}

    def symbolic(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        shape = [
            {12: t, 2: b, 3: b + 1}.get(n, n) if i == 0 else n for i, n in enumerate(value.shape)
        ]
        return SimpleNamespace(shape=shape, dtype=value.dtype)

    calls = {
        "paged_attention": paged(12, 2, window=16, sinks=1),
        "attention": (*(meta(12, 4, 8),) * 3, integers(3), 1.0),
        "linear": (meta(12, 64), pack_linear(meta(100, 64)), None, 100),
        "linear_many": (meta(12, 64), pack_linear(meta(100, 64)), None, 100),
    }
    for op, arguments in calls.items():
        numbers = cost(op, Load(90, 500), *arguments)
        formulas = cost(op, Load(context, pairs), *map(symbolic, arguments))
        assert [float(sympy.sympify(f).subs(sizes)) for f in formulas] == list(numbers)


def test_an_op_without_a_cost_is_refused() -> None:
    with pytest.raises(TypeError, match="'cost'"):
        declare(schema="free(Tensor x) -> Tensor", doc="", fake=id, reference=id, cases=[])  # type: ignore[call-arg]
    assert "free" not in OPS

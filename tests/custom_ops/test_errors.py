"""A wrong argument gets one sentence that names it; nothing is computed, nothing crashes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from ingot.custom_ops.attention_cases import Batch
from ingot.custom_ops.declare import OPS
from ingot.custom_ops.eager import eager
from ingot.custom_ops.linear import pack_linear

ATTENTION = (
    "q k v kv_cache slot_mapping query_start seq_lens block_table rotary_cos rotary_sin "
    "scale window softcap n_sink kv_dtype".split()
)


ROTARY = ("rotary_cos", "rotary_sin")


def attention(generator: torch.Generator, **changes: Any) -> torch.Tensor:
    """Calls with two sequences of 33 and 1 tokens, 17 new in all, and some arguments replaced."""
    batch = Batch("errors", [(17, 16), (0, 1)], dim=8)
    arguments = dict(zip(ATTENTION, batch.make(generator), strict=True))
    for name, change in changes.items():
        arguments[name] = change(arguments[name]) if callable(change) else change
    before = arguments["kv_cache"].clone()
    try:
        return torch.ops.ingot.paged_attention(*arguments.values())
    except RuntimeError:
        assert torch.equal(arguments["kv_cache"], before)
        raise


def put(index: Any, value: int) -> Any:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor[index] = value
        return tensor

    return change


BAD_ATTENTION = [
    ("q must be float32", {"q": lambda q: q.double()}),
    ("q must be float32", {"q": lambda q: q[0]}),
    ("q must be contiguous in its last", {"q": lambda q: q.transpose(1, 2).contiguous().mT}),
    ("k must be float32 .17, 2, 8., but is float32 .17, 2, 7.", {"k": lambda k: k[..., :7]}),
    ("v must be", {"v": lambda v: v[:-1]}),
    ("4 query heads are not a multiple of 3", {"k": lambda k: k[:, [0, 1, 1]]}),
    ("head_dim is 0", {name: lambda x: x[..., :0] for name in "qkv"}),
    ("head_dim is 257", {name: lambda x: x.repeat(1, 1, 33)[..., :257] for name in "qkv"}),
    ("kv_cache must be uint8", {"kv_cache": lambda c: c[:, 1:]}),
    ("kv_cache must be uint8", {"kv_dtype": "bfloat16"}),
    (r"kv_cache must be uint8 .., 768., but", {"kv_dtype": "int8"}),
    ("aligned to 4 bytes", {"kv_cache": lambda c: torch.cat([c, c[:, :1]], 1)[:, :-1]}),
    (
        "aligned to 4 bytes",
        {"kv_cache": lambda c: c.view(-1)[2:][: 7 * 768].view(7, 768), "kv_dtype": "int8"},
    ),
    ("kv_dtype is .int4.; write float32", {"kv_dtype": "int4"}),
    (r"slot_mapping\[16\] is 96, outside \[-1, 96\)", {"slot_mapping": put(16, 96)}),
    (r"slot_mapping\[0\] is -2", {"slot_mapping": put(0, -2)}),
    ("slot_mapping must be int64", {"slot_mapping": lambda s: s.int()}),
    ("slot_mapping must be contiguous", {"slot_mapping": lambda s: s.repeat_interleave(2)[::2]}),
    (r"query_start\[0\] is 1, not 0", {"query_start": put(0, 1)}),
    ("must rise within", {"query_start": put(1, 18)}),
    ("must rise within", {"query_start": put(2, 2)}),
    ("must rise within", {"query_start": put(2, 2**62)}),
    ("seq_lens must be int64 .1.", {"query_start": lambda s: s[:-1]}),
    ("query_start is empty", {"query_start": lambda s: s[:0]}),
    (r"seq_lens\[0\] is 15, but has 16 new", {"seq_lens": put(0, 15)}),
    (r"seq_lens\[0\] is -1", {"seq_lens": put(0, -1)}),
    (r"seq_lens\[1\] is 49, but .* room for 48", {"seq_lens": put(1, 49)}),
    (r"block_table\[0, 2\] is 6, outside \[0, 6\)", {"block_table": put((0, 2), 6)}),
    (r"block_table\[1, 0\] is -1", {"block_table": put((1, 0), -1)}),
    ("block_table must be int64", {"block_table": lambda t: t[:1]}),
    ("window is 0", {"window": 0}),
    ("rotary_cos and rotary_sin come together", {"rotary_cos": torch.ones(17, 4)}),
    ("rotary_cos must be float32", {name: torch.ones(16, 4) for name in ROTARY}),
    ("turns 5 pairs, head_dim 8 has 4", {name: torch.ones(17, 5) for name in ROTARY}),
    ("softcap is 0; it must be above 0", {"softcap": 0.0}),
    ("softcap is nan", {"softcap": float("nan")}),
    ("n_sink is -1", {"n_sink": -1}),
    (r"block_table\[0, 0\] is -1", {"window": 2, "n_sink": 1, "block_table": put((0, 0), -1)}),
]


@pytest.mark.parametrize(("sentence", "changes"), BAD_ATTENTION)
def test_attention(sentence: str, changes: dict[str, Any], generator: torch.Generator) -> None:
    with pytest.raises(RuntimeError, match=f"^paged_attention: .*{sentence}"):
        attention(generator, **changes)


def test_the_unchanged_call_is_good(generator: torch.Generator) -> None:
    assert attention(generator).isfinite().all()


def test_blocks_before_the_window_are_not_needed(generator: torch.Generator) -> None:
    assert attention(generator, window=2, block_table=put((0, 0), -1)).isfinite().all()


STARTS = torch.tensor([0, 2, 5])
HEADS = torch.ones(5, 2, 8)
BAD_BIDIRECTIONAL = [
    ("q must be float32", (HEADS.double(), HEADS, HEADS, STARTS)),
    ("k must be float32 .5, 2, 8.", (HEADS, HEADS[..., :7], HEADS, STARTS)),
    ("2 query heads are not a multiple of 3", (HEADS, HEADS[:, [0, 0, 1]], HEADS, STARTS)),
    ("head_dim is 0", (HEADS[..., :0], HEADS[..., :0], HEADS[..., :0], STARTS)),
    ("query_start is empty", (HEADS, HEADS, HEADS, STARTS[:0])),
    (r"query_start\[0\] is 1", (HEADS, HEADS, HEADS, STARTS + 1)),
    ("must rise within", (HEADS, HEADS, HEADS, torch.tensor([0, 6]))),
    ("must rise within", (HEADS, HEADS, HEADS, torch.tensor([0, 4, 3]))),
    ("query_start must be int64", (HEADS, HEADS, HEADS, STARTS.int())),
]


@pytest.mark.parametrize(("sentence", "arguments"), BAD_BIDIRECTIONAL)
def test_bidirectional_attention(sentence: str, arguments: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(RuntimeError, match=f"^attention: .*{sentence}"):
        torch.ops.ingot.attention(*arguments, 1.0)


WEIGHT = pack_linear(torch.ones(70, 8))
BAD_LINEAR = [
    ("x must be float32", (torch.ones(2, 8, dtype=torch.float64), WEIGHT, None, 70)),
    ("x must be float32", (torch.ones(2, 3, 8), WEIGHT, None, 70)),
    ("x must be float32 .*but is float16", (torch.ones(2, 8).half(), WEIGHT, None, 70)),
    ("x must be contiguous", (torch.ones(8, 2).T, WEIGHT, None, 70)),
    ("packed weight must be float32 .., 9, 64.", (torch.ones(2, 9), WEIGHT, None, 70)),
    ("packed weight must be float32", (torch.ones(2, 8), torch.ones(70, 8), None, 70)),
    ("packed weight must be contiguous", (torch.ones(2, 8), WEIGHT.mT.contiguous().mT, None, 70)),
    ("out_features is 129", (torch.ones(2, 8), WEIGHT, None, 129)),
    ("out_features is -5", (torch.ones(2, 8), WEIGHT, None, -5)),
    ("out_features is -1", (torch.ones(2, 8), WEIGHT[:0], None, -1)),
    ("bias must be float32 .70.", (torch.ones(2, 8), WEIGHT, torch.ones(71), 70)),
]


@pytest.mark.parametrize(("sentence", "arguments"), BAD_LINEAR)
def test_linear(sentence: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(RuntimeError, match=f"^linear: .*{sentence}"):
        torch.ops.ingot.linear(*arguments)


@pytest.mark.parametrize("token", [-1, 128, 2**40])
def test_embedding(token: int) -> None:
    with pytest.raises(
        RuntimeError, match=rf"^embedding: tokens\[1\] is {token}, outside \[0, 128"
    ):
        torch.ops.ingot.embedding(torch.tensor([0, token]), WEIGHT, 8)


def test_empty_inputs_still_check() -> None:
    for tokens, dim in itertools.product([0, 2], [7, 9, -1]):
        with pytest.raises(RuntimeError, match="packed weight"):
            torch.ops.ingot.embedding(torch.zeros(tokens, dtype=torch.int64), WEIGHT, dim)


def test_tensors_of_several_devices_are_refused() -> None:
    weight = pack_linear(torch.zeros(4, 8))
    with pytest.raises(
        RuntimeError, match="linear takes tensors of one CPU or one GPU, not of cpu"
    ):
        eager(OPS["linear"].schema)(torch.zeros(2, 8), weight.to("meta"), None, 4)
    with pytest.raises(RuntimeError, match="one CPU or one GPU, not of meta"):
        eager(OPS["linear"].schema)(torch.zeros(2, 8, device="meta"), weight.to("meta"), None, 4)

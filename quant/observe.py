"""What calibration texts show of the inputs of a block's linears.

Blocks run one after the other, each on all tokens before the next: a `Call` for each part of the
samples keeps what goes into the next block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..custom_ops.paged_attention import BLOCK
from ..models import Decoder

CHUNK = 2048  # tokens that run at once: what bounds the memory of activations
ROWS = 2048  # of inputs that are kept of a linear, for a search
HELD_BACK = 256  # and to judge what it found
_SEARCHED = 0.8  # of the tokens; those to judge by come from the rest


def blocks_of(model: Any) -> dict[str, nn.Module]:
    """A model's equal blocks by path, in the order in which they run."""
    path = "model.layers" if isinstance(model, Decoder) else "layers"
    return {f"{path}.{i}": block for i, block in enumerate(model.get_submodule(path))}


def arguments(model: Any, tokens: Tensor) -> tuple[Any, ...]:
    """What `model` is called with for `tokens` [B, L], all sequences from their beginning.

    A decoder is asked for no logits, and its layers share one cache, whose blocks each writes
    before it reads them.
    """
    sequences, length = tokens.shape
    positions = torch.arange(length).repeat(sequences)
    query_start = torch.arange(sequences + 1) * length
    if not isinstance(model, Decoder):
        return tokens.flatten(), torch.zeros_like(positions), positions, query_start
    blocks = -(-length // BLOCK)
    block_table = torch.arange(sequences * blocks).view(sequences, blocks)
    slots = (block_table[:, :1] * BLOCK + torch.arange(length)).flatten()
    lengths = torch.full((sequences,), length)
    cache = torch.zeros(sequences * blocks, model.bytes_per_block, dtype=torch.uint8)
    return (
        tokens.flatten(),
        positions,
        slots,
        query_start,
        lengths,
        lengths,
        block_table,
        torch.empty(0, dtype=torch.int64),
        [cache] * model.config.num_layers,
    )


@dataclass
class Call:
    """What goes into the next block: its x of some samples, and the `rest` for each block."""

    x: Any
    rest: list[tuple[Any, ...]]


def first_calls(model: Any, tokens: Tensor) -> list[Call]:
    """What goes into the first block for `tokens` [samples, L]. No block runs: each steps aside,
    noting what it is called with beside x."""
    calls = []
    blocks = blocks_of(model).values()
    samples = max(1, CHUNK // tokens.shape[1])
    for first_sample in range(0, len(tokens), samples):
        part = tokens[first_sample : first_sample + samples]
        noted: list[tuple[Any, ...]] = []
        first: list[Any] = []

        def step_aside(x: Any, *rest: Any, noted: Any = noted, first: Any = first) -> Any:
            first.append(x)
            noted.append(rest)
            return x

        for block in blocks:
            block.forward = step_aside
        try:
            model(*arguments(model, part))
        finally:
            for block in blocks:
                del block.forward
        calls.append(Call(first[0], noted))
    return calls


class Seen:
    """Inputs of one linear with K columns.

    mean, largest: of each column's magnitudes over all tokens [K]. searched [<= ROWS, K] and
    held_back [<= HELD_BACK, K]: some tokens' inputs, of the former and of the latter texts.
    """

    def __init__(self, tokens: int) -> None:
        border = max(1, min(tokens - 1, round(tokens * _SEARCHED)))
        self._picked = _evenly(0, border, ROWS), _evenly(border, tokens, HELD_BACK)
        self._kept: tuple[list[Tensor], list[Tensor]] = [], []
        self._tokens = 0
        self._sum: Tensor | float = 0.0
        self.largest = torch.zeros(1)

    def add(self, x: Tensor) -> None:
        magnitudes = x.abs()
        self._sum = self._sum + magnitudes.sum(0)
        self.largest = torch.maximum(self.largest, magnitudes.amax(0))
        for picked, kept in zip(self._picked, self._kept, strict=True):
            here = (picked >= self._tokens) & (picked < self._tokens + len(x))
            kept.append(x[picked[here] - self._tokens])
        self._tokens += len(x)

    @property
    def mean(self) -> Tensor:
        return torch.as_tensor(self._sum) / self._tokens

    @property
    def searched(self) -> Tensor:
        return torch.cat(self._kept[0])

    @property
    def held_back(self) -> Tensor:
        return torch.cat(self._kept[1])


def _evenly(first: int, end: int, most: int) -> Tensor:
    return torch.linspace(first, end - 1, min(most, end - first), dtype=torch.float64).long()


def observe(
    block: nn.Module, names: Iterable[str], run: Callable[[], None], tokens: int
) -> dict[str, Seen]:
    """What the block's linears `names` read while `run` runs it, on `tokens` tokens in all."""
    seen = {name: Seen(tokens) for name in names}

    def note(it: Seen, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        it.add(args[0])

    handles = [
        block.get_submodule(name).register_forward_pre_hook(partial(note, it))
        for name, it in seen.items()
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return seen

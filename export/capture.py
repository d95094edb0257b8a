"""Capture: a decoder module becomes one torch.export graph with dynamic sizes from 1.

One graph serves prefill, decode and continuous batching, because it is ragged over tokens. Shape
letters: T new tokens of all sequences, B sequences, P blocks in the longest block table, R rows of
logits.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch.export import Dim, ExportedProgram

from .errors import ExportError

if TYPE_CHECKING:
    from ..models import Decoder

BLOCK_SIZE = 16
_NUM_BLOCKS = 7  # of the example cache; the graph does not depend on it

# Inputs in order, with their symbolic shapes: the graph contract, and what the manifest says of it.
DECODER_INPUTS: dict[str, tuple[str, ...]] = {
    "tokens": ("T",),
    "positions": ("T",),
    "slot_mapping": ("T",),
    "query_start": ("B+1",),
    "seq_lens": ("B",),
    "context_lens": ("B",),
    "block_table": ("B", "P"),
    "logit_rows": ("R",),
}


def example_inputs(module: Decoder) -> tuple[object, ...]:
    """Two sequences of 5 and 3 new tokens: sizes that differ, so that none is taken for another."""
    integers = (
        [1] * 8,
        [0, 1, 2, 3, 4, 0, 1, 2],
        [16, 17, 18, 19, 20, 64, 65, 66],
        [0, 5, 8],
        [5, 3],
        [5, 3],
        [[1, 2, 3, 0], [4, 5, 6, 0]],
        [0, 4, 5, 6, 7],
    )
    cache = torch.zeros(_NUM_BLOCKS, module.bytes_per_block, dtype=torch.uint8)
    caches = [torch.zeros_like(cache) for _ in range(module.config.num_layers)]
    return (*(torch.tensor(value, dtype=torch.int64) for value in integers), caches)


def dynamic_shapes(module: Decoder) -> tuple[object, ...]:
    tokens, sequences = Dim("T", min=1, max=1 << 20), Dim("B", min=1, max=1 << 16)
    blocks, rows = Dim("P", min=1, max=1 << 20), Dim("R", min=1, max=1 << 20)
    cache_blocks = Dim("num_blocks", min=1, max=1 << 24)
    return (
        {0: tokens},
        {0: tokens},
        {0: tokens},
        {0: Dim.DYNAMIC},  # B + 1, which the tracer finds by itself
        {0: sequences},
        {0: sequences},
        {0: sequences, 1: blocks},
        {0: rows},
        [{0: cache_blocks}] * module.config.num_layers,
    )


def capture(module: Decoder) -> ExportedProgram:
    """Export the decoder's graph. Raises ExportError if its forward is not the graph contract's."""
    names = list(inspect.signature(module.forward).parameters)
    if names != [*DECODER_INPUTS, "kv_cache"]:
        raise ExportError(f"forward takes {names}, not the decoder's inputs {[*DECODER_INPUTS]}")
    with torch.no_grad():
        return torch.export.export(
            module, example_inputs(module), dynamic_shapes=dynamic_shapes(module), strict=False
        )


def manifest_graph(module: Decoder) -> dict[str, object]:
    """The graph's signature as the manifest states it."""
    inputs: list[dict[str, object]] = [
        {"name": name, "dtype": "int64", "shape": list(shape)}
        for name, shape in DECODER_INPUTS.items()
    ]
    inputs += [
        {
            "name": f"kv_cache.{layer}",
            "dtype": "uint8",
            "shape": ["num_blocks", module.bytes_per_block],
        }
        for layer in range(module.config.num_layers)
    ]
    logits = {"name": "logits", "dtype": "float32", "shape": ["R", module.config.vocab_size]}
    return {"inputs": inputs, "outputs": [logits]}

"""Packages of named shapes without their weights, which travel to a machine with a GPU: some MB
each, made where torch and triton are those that export for GPUs, run where neither need be.

    scripts/gpu_suite --make [--shape llama-3-8b] [--recipes bf16,int4]    writes build/carried

There `filled` makes packages of them, of random weights: nothing that is timed depends on values.
Of CHECKED there is one for the CPU, too, which has the same weights (packages.py).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ingot.export.archive import ALIGNMENT, TOP, ArchiveWriter

ROOT = Path(__file__).parents[2]
WEIGHTS, MANIFEST = "ingot/weights.bin", "ingot/manifest.json"
# Of the linears; the head is bfloat16, or 8 bits.
RECIPES = {"bf16": None, "int8": "int8", "int4": "int4"}
ARCHITECTURES, ISA = "80,90", "x86-64-v3"
# A name for some layers of an ordinary model, small enough for the CPU: biases, tied weights, seven
# query heads to a KV head.
CHECKED = "checked"
_CHECKED = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 4,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
_PART = 64 << 20  # bytes of random numbers, which repeat: a GPU's caches hold less
_SCALES = 128  # bytes at least that a quantised weight's blocks begin with: 64 scales
# A block of 4-bit codes that has multipliers behind the scales, and the largest that is allowed.
_MULTIPLIED, _MULTIPLIERS, _LARGEST = 4480, 256, 16


def path_of(shape: str, recipe: str, device: str = "cuda") -> Path:
    on = "" if device == "cuda" else f"-{device}"
    return ROOT / "build" / "carried" / f"{shape}-{recipe}{on}.pt2"


def whole(shape: str, recipe: str, device: str = "cuda") -> Path:
    """The carried package with weights, which is made where it is not there yet."""
    carried = path_of(shape, recipe, device)
    return filled(carried, carried.parents[1] / "bench" / f"{carried.stem}-carried.pt2")


def make(shape: str, recipe: str, device: str = "cuda") -> Path:
    """The package without its weights, which are never in memory. Needs what export for GPUs
    needs; raises ExportError."""
    import torch
    from bench_model import SHAPES

    from ingot import export, models, quant
    from ingot.export import weights
    from ingot.export.replaced import replaced
    from ingot.models.layers import filled as filled_with

    class Places(weights.WeightStore):
        """Where each tensor would go."""

        end_of_all = 0

        def plan(self, tensors: Mapping[str, torch.Tensor], names: Sequence[str]) -> None:
            places: dict[int, int] = {}
            for name in names:
                tensor = tensors[name]
                if tensor.data_ptr() not in places:
                    places[tensor.data_ptr()] = self.end_of_all
                    self.end_of_all += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
                self.constants[name] = {
                    "offset": places[tensor.data_ptr()],
                    "nbytes": tensor.nbytes,
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                    "shape": list(tensor.shape),
                    "stride": list(tensor.stride()),
                }

    config, family = models.read_config({**SHAPES, CHECKED: _CHECKED}[shape], shape)
    model = models.empty(config, dtype="bfloat16", model=family.model)
    if rules := RECIPES[recipe]:
        quant.swap(model, quant.find(rules, None))
        model.quantization = quant.describe(model, quant.find(rules, None))
    for _, name, owner in model.owners():
        tensor = getattr(owner, name)
        setattr(owner, name, filled_with(torch.zeros(tensor.shape, dtype=tensor.dtype)))
    model.tie()
    output = path_of(shape, recipe, device)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replaced(weights, WeightStore=Places):
        where = {"cuda_arch": ARCHITECTURES} if device == "cuda" else {"isa": ISA}
        export.export_model(model, output, name=shape, device=device, progress=print, **where)
    return output


def filled(carried: Path, output: Path) -> Path:
    """A whole package at `output`, if it is not there yet."""
    if output.exists():
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(carried) as archive, ArchiveWriter(output) as writer:
        manifest = json.loads(archive.read(f"{TOP}/{MANIFEST}"))
        writer.add(WEIGHTS, _weights(manifest["constants"]))
        for name in manifest["entries"]:
            if name != WEIGHTS:
                writer.add(name, archive.read(f"{TOP}/{name}"))
        manifest["entries"] = writer.entries
        writer.add_last(MANIFEST, json.dumps(manifest).encode())
    return output


def _weights(constants: Mapping[str, Mapping[str, Any]]) -> Iterator[bytes | memoryview]:
    end = 0
    for name, fact in sorted(constants.items(), key=lambda item: item[1]["offset"]):
        if fact["offset"] < end:
            continue  # tied
        yield bytes(fact["offset"] - end)
        end = fact["offset"] + fact["nbytes"]
        part = _values(fact["dtype"], fact["shape"][-1], "norm" in name)
        for begin in range(0, fact["nbytes"], len(part)):
            yield part[: fact["nbytes"] - begin]


@cache
def _values(dtype: str, block: int, ones: bool) -> memoryview:
    """Of a weight, to be repeated: random, or ones; of codes, blocks of so many bytes
    (docs/format.md) with small scales."""
    generator = np.random.default_rng(0)
    if dtype == "uint8":
        blocks = generator.integers(256, size=(_PART // block, block), dtype=np.uint8)
        blocks[:, :_SCALES] = np.full(_SCALES // 2, 0.002, np.float16).view(np.uint8)
        if block == _MULTIPLIED:
            multipliers = blocks[:, _SCALES : _SCALES + _MULTIPLIERS]
            multipliers %= _LARGEST
            multipliers += 1
        return memoryview(blocks.reshape(-1).data)
    count = _PART // {"bfloat16": 2, "float32": 4}[dtype]
    values = generator.standard_normal(count, np.float32) * np.float32(0.02)
    if ones:
        values = np.ones(1 << 16, np.float32)
    if dtype == "bfloat16":
        values = (values.view(np.uint32) >> 16).astype(np.uint16)
    return memoryview(values.view(np.uint8).data)

"""A checkpoint as `ingot analyze` sees it: config.json alone, no weights, no compilation."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from .. import models, quant
from ..custom_ops.kv_layout import BLOCK
from ..models import CheckpointError, Decoder, Model
from ..models.encoder import ImageClassifier
from ..profiling.analysis import Sizes, Subject
from .dry_run import DryRun, dry_run


def of_checkpoint(
    checkpoint: Path,
    *,
    dtype: str = "float32",
    kv_dtype: str = "auto",
    recipe: str | None = None,
    group_size: int | None = None,
) -> Subject:
    """What `ingot export` with these options would make of the checkpoint. Raises CheckpointError.

    A folder with a config.json is enough: nothing else of it is read.
    """
    values, _, model = models.outline(checkpoint, dtype=dtype, kv_dtype=kv_dtype)
    if values.get("quantization_config") or values.get("compression_config"):
        raise CheckpointError(
            f"{checkpoint} is quantised already, which its config.json does not tell all of; export"
            " it, and analyze the package"
        )
    rules: tuple[quant.Rule, ...] = ()
    if recipe is not None:
        found = quant.find(recipe, group_size)
        with torch.device("meta"):
            quant.swap(model, found)
        rules = found.rules
    elif group_size is not None:
        raise CheckpointError("--group-size is for quantised weights; give --quant too")
    model.to("meta")  # what is computed, not loaded, too
    model.tie()

    @cache
    def run(tokens: int, sequences: int, blocks: int, rows: int) -> DryRun:
        return dry_run(model, {"T": tokens, "B": sequences, "P": blocks, "R": rows})

    def of_step(sizes: Sizes) -> DryRun:
        return run(*(int(sizes.get(name, 0)) for name in ("T", "B", "P", "R")))

    config = model.config
    return Subject(
        str(checkpoint),
        {
            "architecture": config.architecture,
            "kind": model.kind,
            "name": checkpoint.resolve().name,
            "parameters": model.parameter_count,
            "dtype": model.dtype,
        },
        weight_bytes=sum(tensor.nbytes for tensor in _tensors(model, shared_once=True).values()),
        module_bytes=_module_bytes(model),
        max_tokens=1 if isinstance(model, ImageClassifier) else config.max_seq_len,
        calls=lambda sizes: of_step(sizes).calls,
        temporary_bytes=lambda sizes: of_step(sizes).temporary_bytes,
        parameters=_parameters(model),
        cache=_cache_facts(model),
        activation_bits=max((r.activation_bits for r in rules if r.bits), default=16),
        quantization=recipe,
    )


def _tensors(model: Model, shared_once: bool) -> dict[str, torch.Tensor]:
    parameters = model.named_parameters(remove_duplicate=shared_once)
    return {**dict(parameters), **dict(model.named_buffers())}


def _module_bytes(model: Model) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, tensor in _tensors(model, shared_once=False).items():
        path = name.rpartition(".")[0]
        found[path] = found.get(path, 0) + tensor.nbytes
    return found


def _parameters(model: Model) -> dict[str, int]:
    found: dict[str, int] = {}
    for path, name, owner in model.owners():
        found[path] = found.get(path, 0) + owner.parameter_count(path, name)
    return found


def _cache_facts(model: Model) -> dict[str, Any] | None:
    if not isinstance(model, Decoder):
        return None
    return {
        "dtype": model.kv_dtype,
        "block_size": BLOCK,
        "bytes_per_block": model.bytes_per_block,
        "num_layers": model.config.num_layers,
    }

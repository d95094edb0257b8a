"""Models: plain PyTorch modules over our ops, and how checkpoints fill them.

>>> model = models.load(Path("demo/checkpoint"), dtype="bfloat16")
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from . import checkpoint as disk
from .config import Config, Rope
from .decoder import Decoder, owners
from .errors import CheckpointError
from .families import Family, read_config
from .layers import Stored

__all__ = ["CheckpointError", "Config", "Decoder", "Rope", "build", "empty", "load", "read_config"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
KV_DTYPES = ("float32", "bfloat16", "float16")


def load(
    checkpoint: Path, dtype: str = "float32", max_seq_len: int | None = None, kv_dtype: str = "auto"
) -> Decoder:
    """The checkpoint's model on CPU, weights packed as `dtype`.

    kv_dtype "auto" follows `dtype`. Raises CheckpointError, one sentence, for what cannot be used:
    a missing or damaged file, an unknown architecture or field, a tensor of another shape, one too
    many or one too few.
    """
    if not checkpoint.is_dir():
        raise CheckpointError(f"no checkpoint folder {checkpoint}; give a folder with config.json")
    where = checkpoint / "config.json"
    config, family = read_config(disk.read_json(where), str(where))
    config = dataclasses.replace(config, max_seq_len=_length(config, max_seq_len, str(where)))
    model = empty(config, dtype, kv_dtype)
    _fill(model, checkpoint, family)
    return model


def build(config: Config, dtype: str = "float32", kv_dtype: str = "auto", seed: int = 0) -> Decoder:
    """A model of random weights: normal, 0.02 apart, norms one."""
    model = empty(config, dtype, kv_dtype)
    generator = torch.Generator().manual_seed(seed)
    for path, name, owner in owners(model):
        shapes = owner.pieces(path, name).values()
        if "norm" in path:
            pieces = [torch.ones(shape) for shape in shapes]
        else:
            pieces = [torch.randn(shape, generator=generator) * 0.02 for shape in shapes]
        _set(owner, name, pieces)
    _tie(model)
    return model


def empty(config: Config, dtype: str = "float32", kv_dtype: str = "auto") -> Decoder:
    """A model whose weights are on the meta device: shapes without memory."""
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype '{dtype}' is unknown; choose one of {', '.join(DTYPES)}")
    kv_dtype = dtype if kv_dtype == "auto" else kv_dtype
    if kv_dtype not in KV_DTYPES:
        raise CheckpointError(
            f"kv-dtype '{kv_dtype}' is unknown; choose one of {', '.join(KV_DTYPES)}"
        )
    with torch.device("meta"):
        return Decoder(config, DTYPES[dtype], kv_dtype).eval()


def _length(config: Config, wanted: int | None, where: str) -> int:
    if wanted is None:
        return config.max_seq_len
    if not 1 <= wanted <= config.max_seq_len:
        raise CheckpointError(
            f"--max-seq-len {wanted} is not in 1 to {config.max_seq_len}, which {where} states"
        )
    return wanted


def _fill(model: Decoder, checkpoint: Path, family: Family) -> None:
    files = disk.tensor_files(checkpoint)
    family = family.fit(files)
    files = family.loaded(files, model.config.tied_head)
    wanted = {
        (path, name): {family.on_disk(n): shape for n, shape in owner.pieces(path, name).items()}
        for path, name, owner in owners(model)
    }
    shapes = {name: shape for pieces in wanted.values() for name, shape in pieces.items()}
    _check_names(shapes.keys() - files.keys(), files.keys() - shapes.keys(), checkpoint)
    with disk.TensorFiles(files) as tensors:
        for path, name, owner in owners(model):
            pieces = [tensors.read(n, shape) for n, shape in wanted[path, name].items()]
            _set(owner, name, pieces)
    _tie(model)


def _check_names(missing: set[str], extra: set[str], checkpoint: Path) -> None:
    if missing or extra:
        what = f"lacks {min(missing)}" if missing else f"has {min(extra)} too many"
        raise CheckpointError(
            f"{checkpoint} {what} ({len(missing)} missing, {len(extra)} too many); its config.json"
            " and tensors are of different models"
        )


def _set(owner: Stored, name: str, pieces: list[Tensor]) -> None:
    """Put tensors as they are on disk where the module's parameter is, in the parameter's dtype."""
    dtype = getattr(owner, name).dtype
    filled = owner.fill(name, [piece.to(dtype) for piece in pieces])
    setattr(owner, name, torch.nn.Parameter(filled, requires_grad=False))


def _tie(model: Decoder) -> None:
    if model.config.tied_head:
        model.lm_head.weight = model.model.embed_tokens.weight

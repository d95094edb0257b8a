"""Models: plain PyTorch modules over our ops, and how checkpoints fill them.

>>> model = models.load(Path("demo/checkpoint"), dtype="bfloat16")
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..custom_ops.kv_layout import ITEM_BYTES
from . import checkpoint as disk
from .config import Config, ImageConfig, Rope
from .decoder import Decoder
from .errors import CheckpointError
from .families import Family, read_config
from .layers import Stored
from .model import Model

__all__ = [
    "CheckpointError",
    "Config",
    "Decoder",
    "Model",
    "Rope",
    "build",
    "empty",
    "load",
    "read_config",
]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
KV_DTYPES = tuple(ITEM_BYTES)


def load(
    checkpoint: Path,
    dtype: str = "float32",
    max_seq_len: int | None = None,
    kv_dtype: str = "auto",
    image_size: int | None = None,
) -> Any:
    """The checkpoint's model on CPU, weights packed as `dtype`: a `Model`, most often a `Decoder`.

    kv_dtype "auto" follows `dtype`. max_seq_len is a decoder's, image_size an image classifier's:
    pixels a side, where it is not to be as it was trained. Raises CheckpointError, one sentence,
    for what cannot be used: a missing or damaged file, an unknown architecture or field, a tensor
    of another shape, one too many or one too few.
    """
    if not checkpoint.is_dir():
        raise CheckpointError(f"no checkpoint folder {checkpoint}; give a folder with config.json")
    where = checkpoint / "config.json"
    config, family = read_config(disk.read_json(where), str(where))
    config = _sized(config, str(where), max_seq_len=max_seq_len, image_size=image_size)
    model = empty(config, dtype, kv_dtype, family.model)
    _fill(model, checkpoint, family)
    return model


def build(
    config: Any,
    dtype: str = "float32",
    kv_dtype: str = "auto",
    seed: int = 0,
    kind: type[Model] = Decoder,
) -> Any:
    """A model of random weights: normal, 0.02 apart, norms one. kind: its family's `model`."""
    model = empty(config, dtype, kv_dtype, kind)
    generator = torch.Generator().manual_seed(seed)
    for path, name, owner in model.owners():
        shapes = owner.pieces(path, name).values()
        if "norm" in path:
            pieces = [torch.ones(shape) for shape in shapes]
        else:
            pieces = [torch.randn(shape, generator=generator) * 0.02 for shape in shapes]
        _set(owner, name, pieces)
    model.tie()
    return model


def empty(
    config: Any, dtype: str = "float32", kv_dtype: str = "auto", model: type[Model] = Decoder
) -> Any:
    """A model whose weights are on the meta device: shapes without memory."""
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype '{dtype}' is unknown; choose one of {', '.join(DTYPES)}")
    kv_dtype = dtype if kv_dtype == "auto" else kv_dtype
    if kv_dtype not in KV_DTYPES:
        raise CheckpointError(
            f"kv-dtype '{kv_dtype}' is unknown; choose one of {', '.join(KV_DTYPES)}"
        )
    options: dict[str, Any] = {"kv_dtype": kv_dtype} if issubclass(model, Decoder) else {}
    with torch.device("meta"):
        return model(config, DTYPES[dtype], **options).eval()


def _sized(config: Any, where: str, *, max_seq_len: int | None, image_size: int | None) -> Any:
    """The config with the sizes that the user asked for."""
    if max_seq_len is not None:
        if not isinstance(config, Config):
            raise CheckpointError(f"{where} is no decoder's: it has no --max-seq-len")
        if not 1 <= max_seq_len <= config.max_seq_len:
            raise CheckpointError(
                f"--max-seq-len {max_seq_len} is not in 1 to {config.max_seq_len}, which {where}"
                " states"
            )
        config = dataclasses.replace(config, max_seq_len=max_seq_len)
    if image_size is not None:
        if not isinstance(config, ImageConfig):
            raise CheckpointError(f"{where} is no image model's: it has no --image-size")
        if image_size < 1 or image_size % config.patch_size:
            raise CheckpointError(
                f"--image-size {image_size} is no multiple of {config.patch_size}, the patch size"
                f" in {where}"
            )
        config = dataclasses.replace(config, image_size=image_size)
    return config


def _fill(model: Model, checkpoint: Path, family: Family) -> None:
    files = disk.tensor_files(checkpoint)
    family = family.fit(files)
    files = family.loaded(files, getattr(model.config, "tied_head", False))
    wanted = {
        (path, name): {family.on_disk(n): shape for n, shape in owner.pieces(path, name).items()}
        for path, name, owner in model.owners()
    }
    shapes = {name: shape for pieces in wanted.values() for name, shape in pieces.items()}
    _check_names(shapes.keys() - files.keys(), files.keys() - shapes.keys(), checkpoint)
    with disk.TensorFiles(files) as tensors:
        for path, name, owner in model.owners():
            pieces = [tensors.read(n, shape) for n, shape in wanted[path, name].items()]
            _set(owner, name, pieces)
    model.tie()


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

"""Models: plain PyTorch modules over our ops, and how checkpoints fill them.

>>> model = models.load(Path("demo/checkpoint"), dtype="bfloat16")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
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
from .layers import Stored, filled
from .model import Model

__all__ = [
    "CheckpointError",
    "Config",
    "Decoder",
    "Keep",
    "Model",
    "Phase",
    "Plan",
    "Rope",
    "build",
    "empty",
    "fill_random",
    "held",
    "load",
    "no_phase",
    "outline",
    "plan",
    "read_config",
]

Phase = Callable[[str], AbstractContextManager[object]]  # brackets a part of the work, by name


Keep = Callable[[Tensor], Tensor]
Owner = tuple[str, str, Stored]  # path of a module, name of a tensor of its own, the module


def held(tensor: Tensor) -> Tensor:
    """For whoever has the memory."""
    return tensor


def no_phase(_: str) -> AbstractContextManager[object]:
    """For whoever does not measure."""
    return nullcontext()


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
KV_DTYPES = tuple(ITEM_BYTES)


@dataclass
class Plan:
    """A checkpoint that is about to be loaded: its model on the meta device, shapes without memory.

    Modules of `model` that hold tensors may be replaced before `fill` reads those that the model
    then wants. config: config.json's fields. files: which file each tensor lies in.
    """

    checkpoint: Path
    config: dict[str, Any]
    model: Any
    family: Family
    files: dict[str, Path]

    def on_disk(self, name: str) -> str:
        """The checkpoint's name of a tensor."""
        return self.family.on_disk(name)

    def fill(self, phase: Phase = no_phase, keep: Keep = held, but: Sequence[str] = ()) -> Any:
        """The model with its weights, but for those of the modules `but`, which `fill_module` reads
        later. keep: takes each tensor as the model wants it and returns one to hold that is equal.
        Raises CheckpointError."""
        wanted = self._pieces(self.model.owners())
        shapes = {name: shape for pieces in wanted.values() for name, shape in pieces.items()}
        missing, extra = shapes.keys() - self.files.keys(), self.files.keys() - shapes.keys()
        _check_names(missing, extra, self.checkpoint)
        later = tuple(f"{path}." for path in but)
        owners = [owner for owner in self.model.owners() if not owner[0].startswith(later)]
        self._fill(owners, phase, keep)
        self.model.tie()
        return self.model

    def fill_module(self, path: str, phase: Phase = no_phase) -> None:
        """The weights of one module. Raises CheckpointError."""
        inside = f"{path}."
        self._fill([o for o in self.model.owners() if o[0].startswith(inside)], phase, held)

    def stand_in(self, elements: int) -> Any:
        """The model with its tensors of up to so many elements; the larger ones have no content,
        and take no memory until they are written to. Raises CheckpointError."""
        owners = self.model.owners()
        large = {o for o in owners if getattr(o[2], o[1]).numel() > elements}
        for _, name, owner in large:
            tensor = getattr(owner, name)
            setattr(owner, name, filled(torch.empty(tensor.shape, dtype=tensor.dtype)))
        self._fill([owner for owner in owners if owner not in large], no_phase, held)
        self.model.tie()
        return self.model

    def _pieces(self, owners: Sequence[Owner]) -> dict[tuple[str, str], dict[str, tuple[int, ...]]]:
        """Of each tensor, the checkpoint's that make it up, with their shapes."""
        return {
            (path, name): {self.on_disk(n): shape for n, shape in owner.pieces(path, name).items()}
            for path, name, owner in owners
        }

    def _fill(self, owners: Sequence[Owner], phase: Phase, keep: Keep) -> None:
        wanted = self._pieces(owners)
        with disk.TensorFiles(self.files) as tensors:
            for path, name, owner in owners:
                dtype, pieces = owner.piece_dtype(name), wanted[path, name]
                with phase("read"):
                    read = [tensors.read(n, shape, dtype) for n, shape in pieces.items()]
                with phase(owner.filling):
                    tensor = owner.fill(name, read)
                with phase("keep"):
                    setattr(owner, name, filled(keep(tensor)))


def plan(
    checkpoint: Path,
    dtype: str = "float32",
    max_seq_len: int | None = None,
    kv_dtype: str = "auto",
    image_size: int | None = None,
) -> Plan:
    """What `load` will load, before it does."""
    values, family, model = outline(checkpoint, dtype, max_seq_len, kv_dtype, image_size)
    files = disk.tensor_files(checkpoint)
    family = family.fit(files)
    files = family.loaded(files, getattr(model.config, "tied_head", False))
    return Plan(checkpoint, values, model, family, files)


def outline(
    checkpoint: Path,
    dtype: str = "float32",
    max_seq_len: int | None = None,
    kv_dtype: str = "auto",
    image_size: int | None = None,
) -> tuple[dict[str, Any], Family, Any]:
    """What config.json alone says: its fields, the family, and the model on the meta device."""
    if checkpoint.exists() and not checkpoint.is_dir():
        raise CheckpointError(f"{checkpoint} is a file; give the folder that holds config.json")
    if not checkpoint.is_dir():
        raise CheckpointError(
            f"no checkpoint folder {checkpoint}; give a folder with config.json (a model's name on"
            " a hub is no folder: download it first)"
        )
    where = checkpoint / "config.json"
    values = disk.read_json(where)
    config, family = read_config(values, str(where))
    config = _sized(config, str(where), max_seq_len=max_seq_len, image_size=image_size)
    return values, family, empty(config, dtype, kv_dtype, family.model)


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
    return plan(checkpoint, dtype, max_seq_len, kv_dtype, image_size).fill()


def build(
    config: Any,
    dtype: str = "float32",
    kv_dtype: str = "auto",
    seed: int = 0,
    kind: type[Model] = Decoder,
) -> Any:
    """A model of random weights: normal, 0.02 apart, norms one. kind: its family's `model`."""
    return fill_random(empty(config, dtype, kv_dtype, kind), seed)


def fill_random(model: Model, seed: int = 0) -> Any:
    """A model of `empty`, with weights."""
    generator = torch.Generator().manual_seed(seed)
    for path, name, owner in model.owners():
        shapes = owner.pieces(path, name).values()
        if "norm" in path:
            pieces = [torch.ones(shape) for shape in shapes]
        else:
            pieces = [torch.randn(shape, generator=generator) * 0.02 for shape in shapes]
        dtype = owner.piece_dtype(name)
        if isinstance(dtype, torch.dtype):
            pieces = [piece.to(dtype) for piece in pieces]
        setattr(owner, name, filled(owner.fill(name, pieces)))
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


def _check_names(missing: set[str], extra: set[str], checkpoint: Path) -> None:
    if missing or extra:
        what = f"lacks {min(missing)}" if missing else f"has {min(extra)} too many"
        raise CheckpointError(
            f"{checkpoint} {what} ({len(missing)} missing, {len(extra)} too many); its config.json"
            " and tensors are of different models"
        )

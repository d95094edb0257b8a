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
from .decoder import Decoder, named_owners
from .errors import CheckpointError
from .families import read_config
from .layers import Stored

__all__ = ["CheckpointError", "Config", "Decoder", "Rope", "build", "load"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
KV_DTYPES = ("float32", "bfloat16", "float16")

# Buffers that old checkpoints carry and that are computed, not loaded.
_COMPUTED = (".rotary_emb.inv_freq",)


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
    config = read_config(disk.read_json(where), str(where))
    config = dataclasses.replace(config, max_seq_len=_length(config, max_seq_len, str(where)))
    model = _empty(config, dtype, kv_dtype)
    _fill(model, checkpoint)
    return model


def build(config: Config, dtype: str = "float32", kv_dtype: str = "auto", seed: int = 0) -> Decoder:
    """A model of random weights: normal, 0.02 apart, norms one."""
    model = _empty(config, dtype, kv_dtype)
    generator = torch.Generator().manual_seed(seed)
    for name, owner in named_owners(model):
        leaf = name.rpartition(".")[2]
        shape = owner.disk_shape(leaf)
        random = torch.randn(shape, generator=generator) * 0.02
        _set(owner, leaf, torch.ones(shape) if "norm" in name else random)
    _tie(model)
    return model.eval()


def _length(config: Config, wanted: int | None, where: str) -> int:
    if wanted is None:
        return config.max_seq_len
    if not 1 <= wanted <= config.max_seq_len:
        raise CheckpointError(
            f"--max-seq-len {wanted} is not in 1 to {config.max_seq_len}, which {where} states"
        )
    return wanted


def _empty(config: Config, dtype: str, kv_dtype: str) -> Decoder:
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype '{dtype}' is unknown; choose one of {', '.join(DTYPES)}")
    kv_dtype = dtype if kv_dtype == "auto" else kv_dtype
    if kv_dtype not in KV_DTYPES:
        raise CheckpointError(
            f"kv-dtype '{kv_dtype}' is unknown; choose one of {', '.join(KV_DTYPES)}"
        )
    with torch.device("meta"):
        return Decoder(config, DTYPES[dtype], kv_dtype).eval()


def _fill(model: Decoder, checkpoint: Path) -> None:
    owners = dict(named_owners(model))
    tied = {"lm_head.weight"} if model.config.tied_head else set()
    files = {n: p for n, p in disk.tensor_files(checkpoint).items() if not n.endswith(_COMPUTED)}
    files = {n: p for n, p in files.items() if n not in tied}  # a copy of the embedding
    missing = owners.keys() - files.keys() - tied
    extra = files.keys() - owners.keys()
    if missing or extra:
        what = f"lacks {sorted(missing)[0]}" if missing else f"has {sorted(extra)[0]} too many"
        raise CheckpointError(
            f"{checkpoint} {what} ({len(missing)} missing, {len(extra)} too many); its config.json"
            " and tensors are of different models"
        )
    for name, tensor in disk.read_tensors(files):
        owner, leaf = owners[name], name.rpartition(".")[2]
        wanted = owner.disk_shape(leaf)
        if tuple(tensor.shape) != wanted:
            raise CheckpointError(
                f"{files[name]}: tensor {name} is {tuple(tensor.shape)}, config.json wants {wanted}"
            )
        _set(owner, leaf, tensor)
    _tie(model)


def _set(owner: Stored, leaf: str, tensor: Tensor) -> None:
    """Put a tensor as it is on disk where the module's parameter is, in the parameter's dtype."""
    dtype = getattr(owner, leaf).dtype
    filled = owner.fill(leaf, tensor.to(dtype))
    setattr(owner, leaf, torch.nn.Parameter(filled, requires_grad=False))


def _tie(model: Decoder) -> None:
    if model.config.tied_head:
        model.lm_head.weight = model.model.embed_tokens.weight

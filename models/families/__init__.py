"""Model families: for each architecture name, how its config.json becomes a `Config`.

A family is a module here whose FAMILIES maps architecture names to `Family`; adding one is adding a
file. A field that a family did not read is refused by name unless it is off (null, false, zero,
empty): ignoring one that changes the arithmetic would give wrong text in silence.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from functools import cache
from typing import Any

from ..config import Config
from ..errors import CheckpointError
from .family import Family, Fields

__all__ = ["Family", "Fields", "known_families", "read_config"]

# What says nothing about the arithmetic of inference, in every family.
_INERT = frozenset(
    """_name_or_path architectures model_type transformers_version torch_dtype dtype use_cache
    bos_token_id eos_token_id pad_token_id attention_dropout hidden_dropout attn_implementation
    initializer_range pretraining_tp output_attentions output_hidden_states return_dict
    chunk_size_feed_forward id2label label2id problem_type is_encoder_decoder is_decoder
    tie_encoder_decoder torchscript use_bfloat16 name_or_path auto_map cache_implementation
    resid_pdrop embd_pdrop attn_pdrop attention_probs_dropout_prob hidden_dropout_prob
    quantization_config""".split()
)


@cache
def known_families() -> dict[str, Family]:
    """Architecture name, as in config.json's `architectures`, to its family."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__):
        families = importlib.import_module(f"{__name__}.{module.name}")
        found.update(getattr(families, "FAMILIES", {}))
    return found


def read_config(values: dict[str, Any], where: str) -> tuple[Any, Family]:
    """What a config.json says: a Config or one of its kind, and its family.

    Raises CheckpointError, naming what it cannot use.
    """
    name = (values.get("architectures") or [None])[0]
    family = known_families().get(name)
    if family is None:
        known = ", ".join(sorted(known_families()))
        raise CheckpointError(f"{where}: architecture '{name}' is not known; known are {known}")
    fields = Fields(values)
    try:
        config = family.read(fields)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    for field, value in fields.unread():
        if field not in _INERT and value not in (None, False, 0, [], {}):
            raise CheckpointError(
                f"{where}: field '{field}' = {value!r} is not understood for {name}, and may"
                " change its results; remove it if it does not"
            )
    _check(config, where)
    return config, family


def _check(config: Any, where: str) -> None:
    sizes = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name.startswith("num_") or field.name.endswith(("_size", "_dim", "_len"))
    }
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(f"{where}: {name} is {value!r}; it must be a positive integer")
    if isinstance(config, Config):
        _check_decoder(config, where)
    elif config.hidden_size % config.num_heads or config.head_dim > 256:
        raise CheckpointError(
            f"{where}: hidden_size {config.hidden_size} over {config.num_heads} heads must divide,"
            " into at most 256"
        )


def _check_decoder(config: Config, where: str) -> None:
    if config.num_heads % config.num_kv_heads:
        raise CheckpointError(
            f"{where}: {config.num_heads} attention heads cannot share {config.num_kv_heads}"
            " key-value heads; one must divide the other"
        )
    rotary = config.rope.rotary_dim(config.head_dim) if config.rope else 0
    if rotary % 2 or config.head_dim > 256:
        raise CheckpointError(
            f"{where}: head_dim {config.head_dim}, of which {rotary} rotate: at most 256, and those"
            " that rotate must be even"
        )
    if config.windows and len(config.windows) != config.num_layers:
        raise CheckpointError(
            f"{where}: layer_types has {len(config.windows)} entries for {config.num_layers} layers"
        )

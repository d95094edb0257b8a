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

from ..config import Config, Rope
from ..errors import CheckpointError, shortened
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
    name = _architecture(values, where)
    family = known_families().get(name)
    if family is None:
        known = ", ".join(sorted(known_families()))
        raise CheckpointError(
            f"{where}: architecture {shortened(name)} is not known; known are {known}"
        )
    fields = Fields(values)
    try:
        config = family.read(fields)
    except (ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    for field, value in fields.unread():
        if field not in _INERT and value not in (None, False, 0, [], {}):
            raise CheckpointError(
                f"{where}: field {shortened(field)} = {shortened(value)} is not understood for"
                f" {name}, and may change its results; remove it if it does not"
            )
    _check(config, where)
    return config, family


def _architecture(values: dict[str, Any], where: str) -> str:
    names = values.get("architectures")
    if not (isinstance(names, list) and names and isinstance(names[0], str)):
        raise CheckpointError(
            f"{where}: architectures is {shortened(names)}; it must be a list with the name of the"
            " model's class"
        )
    return names[0]


def _check(config: Any, where: str) -> None:
    sizes = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name.startswith("num_") or field.name.endswith(("_size", "_dim", "_len"))
    }
    for name, value in sizes.items():
        if value < 1:  # one that was computed: those that were read are checked
            raise CheckpointError(f"{where}: {name} is {value}; it must be a positive integer")
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
    if config.head_dim > 256:
        raise CheckpointError(f"{where}: head_dim is {config.head_dim}; heads of 256 at most work")
    for rope in filter(None, (config.rope, config.local_rope)):
        _check_rope(rope, config.head_dim, where)


def _check_rope(rope: Rope, head_dim: int, where: str) -> None:
    rotary = rope.rotary_dim(head_dim)
    if rotary % 2 or not 2 <= rotary <= head_dim:
        raise CheckpointError(
            f"{where}: of head_dim {head_dim}, {rotary} would rotate; it must be an even number"
        )
    for name in ("short_factor", "long_factor") if rope.kind == "longrope" else ():
        factors = getattr(rope, name)
        if len(factors) != rotary // 2:
            raise CheckpointError(
                f"{where}: {name} has {len(factors)} numbers for the {rotary // 2} waves of a head"
            )

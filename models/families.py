"""Model families: for each architecture name, how its config.json becomes a `Config`.

Adding a family is adding an entry to FAMILIES. A field that no table knows is refused by name
unless it is off (null, false, zero, empty): ignoring one that changes the arithmetic would give
wrong text in silence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .config import Config, Rope
from .errors import CheckpointError

Fields = dict[str, Any]

# What says nothing about the arithmetic of inference, in every family.
INERT = frozenset(
    """_name_or_path architectures model_type transformers_version torch_dtype dtype use_cache
    bos_token_id eos_token_id pad_token_id attention_dropout hidden_dropout attn_implementation
    initializer_range pretraining_tp output_attentions output_hidden_states return_dict
    chunk_size_feed_forward id2label label2id problem_type is_encoder_decoder is_decoder
    tie_encoder_decoder torchscript use_bfloat16 name_or_path auto_map""".split()
)


@dataclass(frozen=True)
class Family:
    """`read` maps config.json to a Config; `fields` are the names it reads."""

    read: Callable[[Fields], Config]
    fields: frozenset[str]


def read_config(fields: Fields, where: str) -> Config:
    """The Config that a config.json says. Raises CheckpointError, naming what it cannot use."""
    names = fields.get("architectures") or [None]
    family = FAMILIES.get(names[0])
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise CheckpointError(f"{where}: architecture '{names[0]}' is not known; known are {known}")
    for name, value in fields.items():
        if (
            name not in family.fields
            and name not in INERT
            and value not in (None, False, 0, [], {})
        ):
            raise CheckpointError(
                f"{where}: field '{name}' = {value!r} is not understood for {names[0]}, and may"
                " change its results; remove it if it does not"
            )
    try:
        config = family.read(fields)
    except KeyError as error:
        raise CheckpointError(
            f"{where}: field {error} is missing; take the original file"
        ) from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    _check(config, where)
    return config


def _check(config: Config, where: str) -> None:
    sizes = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name.startswith("num_") or field.name.endswith(("_size", "_dim", "_len"))
    }
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(f"{where}: {name} is {value!r}; it must be a positive integer")
    if config.num_heads % config.num_kv_heads:
        raise CheckpointError(
            f"{where}: {config.num_heads} attention heads cannot share {config.num_kv_heads}"
            " key-value heads; one must divide the other"
        )
    if config.head_dim % 2 or config.head_dim > 256:
        raise CheckpointError(f"{where}: head_dim {config.head_dim} must be even and at most 256")


def read_rope(fields: Fields) -> Rope:
    """Both dialects: `rope_parameters` (transformers 5), `rope_theta` and `rope_scaling` before."""
    new: Fields = fields.get("rope_parameters") or {}
    scaling = new or fields.get("rope_scaling") or {}
    theta = float(new.get("rope_theta") or fields.get("rope_theta") or 10000.0)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    known = {field.name for field in dataclasses.fields(Rope)} - {"theta", "kind"}
    values = {name: scaling[name] for name in known if scaling.get(name) is not None}
    unknown = set(scaling) - known - {"rope_type", "type", "rope_theta"}
    if kind not in ("default", "linear", "llama3") or unknown:
        what = f"type '{kind}'" if not unknown else f"fields {sorted(unknown)}"
        raise ValueError(f"rope scaling {what} is not supported; supported are linear and llama3")
    return Rope(theta=theta, kind=kind, **values)


def _llama(fields: Fields) -> Config:
    if fields.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act '{fields['hidden_act']}' is not supported; Llama uses silu")
    heads = fields["num_attention_heads"]
    return Config(
        architecture=fields["architectures"][0],
        vocab_size=fields["vocab_size"],
        hidden_size=fields["hidden_size"],
        intermediate_size=fields["intermediate_size"],
        num_layers=fields["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=fields.get("num_key_value_heads") or heads,
        head_dim=fields.get("head_dim") or fields["hidden_size"] // heads,
        max_seq_len=fields.get("max_position_embeddings", 2048),
        norm_eps=fields.get("rms_norm_eps", 1e-6),
        rope=read_rope(fields),
        attention_bias=bool(fields.get("attention_bias")),
        mlp_bias=bool(fields.get("mlp_bias")),
        tied_head=bool(fields.get("tie_word_embeddings")),
    )


_LLAMA_FIELDS = frozenset(
    """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim max_position_embeddings rms_norm_eps rope_theta rope_scaling
    rope_parameters attention_bias mlp_bias tie_word_embeddings hidden_act""".split()
)

FAMILIES = {"LlamaForCausalLM": Family(_llama, _LLAMA_FIELDS)}

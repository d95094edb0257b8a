"""What a family is, and the reading that families share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import Config, Rope
from ..decoder import Decoder
from ..model import Model


class Fields:
    """A config.json's values, remembering which were asked for. null is absent."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        value = self._values.get(name)
        return default if value is None else value

    def __getitem__(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            raise ValueError(f"field '{name}' is missing; take the original file")
        return value

    def unread(self) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in self._values.items() if name not in self._read)


@dataclass(frozen=True)
class Family:
    """How one architecture's checkpoints are read.

    read: config.json to Config. Raises ValueError for what it cannot express.
    names: (pattern of ours, theirs): parts of tensor names to replace (`re.sub`), in order.
    prefix: what the names of some of its checkpoints lack in front.
    computed: ends of the names of tensors that are computed, or not part of the model.
    model: the module that such a config makes.
    """

    read: Callable[[Fields], Any]
    names: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    computed: tuple[str, ...] = (".rotary_emb.inv_freq",)
    model: type[Model] = Decoder

    def on_disk(self, name: str) -> str:
        for ours, theirs in self.names:
            name = re.sub(ours, theirs, name)
        return name

    def fit(self, files: Mapping[str, Path]) -> Family:
        """This family for a checkpoint of these tensors: without the prefix, if none has it, and
        with the names that LayerNorm's tensors had once."""
        names = self.names
        if not any(name.startswith(self.prefix) for name in files):
            names = (*names, (f"^{self.prefix}", ""))
        if any(name.endswith("LayerNorm.gamma") for name in files):
            names = (*names, ("Norm.weight", "Norm.gamma"), ("Norm.bias", "Norm.beta"))
        return replace(self, names=names)

    def loaded(self, files: Mapping[str, Path], tied_head: bool) -> dict[str, Path]:
        """The tensors to load; a tied head, where it is stored, is a copy of the embedding."""
        skipped = {"lm_head.weight"} if tied_head else set()
        return {
            name: path
            for name, path in files.items()
            if name not in skipped and not name.endswith(self.computed)
        }


ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


def read_activation(fields: Fields, field: str = "hidden_act", default: str = "silu") -> Any:
    name = fields.get(field, default)
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{field} '{name}' is not supported; supported are {known}")
    return ACTIVATIONS[name]


def read_decoder(fields: Fields, **changes: Any) -> Config:
    """The Config of a Llama-like config.json, with a family's `changes`."""
    heads = fields["num_attention_heads"]
    common: dict[str, Any] = {
        "architecture": fields["architectures"][0],
        "vocab_size": fields["vocab_size"],
        "hidden_size": fields["hidden_size"],
        "intermediate_size": fields["intermediate_size"],
        "num_layers": fields["num_hidden_layers"],
        "num_heads": heads,
        "num_kv_heads": fields.get("num_key_value_heads", heads),
        "head_dim": fields.get("head_dim", fields["hidden_size"] // heads),
        "max_seq_len": fields.get("max_position_embeddings", 2048),
        "norm_eps": fields.get("rms_norm_eps", 1e-6),
        "activation": read_activation(fields),
        "tied_head": bool(fields.get("tie_word_embeddings", False)),
    }
    if "rope" not in changes:
        changes["rope"] = read_rope(fields)
    return Config(**{**common, **changes})


def read_windows(
    fields: Fields, window: int | None, is_local: Callable[[int], bool]
) -> tuple[int | None, ...]:
    """Each layer's window: by `layer_types`, else as `is_local(layer)` says."""
    layers = range(fields["num_hidden_layers"])
    types = fields.get("layer_types")
    if types is None:
        types = ["sliding_attention" if is_local(layer) else "full_attention" for layer in layers]
    unknown = set(types) - {"sliding_attention", "full_attention"}
    if unknown:
        raise ValueError(f"layer_types has {sorted(unknown)}; supported are sliding and full")
    windows = tuple(window if kind == "sliding_attention" else None for kind in types)
    return windows if any(windows) else ()


def read_rope(fields: Fields) -> Rope:
    """Both dialects: `rope_parameters` (transformers 5), `rope_theta` and `rope_scaling` before."""
    new = fields.get("rope_parameters", {})
    old = fields.get("rope_scaling", {})
    theta = fields.get("rope_theta", 10000.0)
    partial = fields.get("partial_rotary_factor", 1.0)
    original = fields.get("original_max_position_embeddings")
    return make_rope(
        {
            "rope_theta": theta,
            "partial_rotary_factor": partial,
            **({"original_max_position_embeddings": original} if original else {}),
            **(new or old),
        },
        fields.get("max_position_embeddings", 2048),
    )


_ROPE_FIELDS = {
    "default": "",
    "linear": "factor",
    "llama3": "factor low_freq_factor high_freq_factor original_max_position_embeddings",
    "yarn": "factor beta_fast beta_slow truncate original_max_position_embeddings "
    "attention_factor mscale mscale_all_dim",
    "longrope": "short_factor long_factor original_max_position_embeddings attention_factor factor",
}


def make_rope(values: Mapping[str, Any], max_positions: int) -> Rope:
    """One `rope_parameters` or `rope_scaling`, `rope_theta` inside. Raises ValueError."""
    given = {name: value for name, value in values.items() if value is not None}
    kind = given.pop("rope_type", given.pop("type", "default"))
    given.pop("type", None)
    kind = {"su": "longrope"}.get(kind, kind)
    if kind not in _ROPE_FIELDS:
        known = ", ".join(_ROPE_FIELDS)
        raise ValueError(f"rope scaling type '{kind}' is not supported; supported are {known}")
    known_fields = {*_ROPE_FIELDS[kind].split(), "rope_theta", "partial_rotary_factor"}
    if kind == "default":  # a config.json may state it beside, without effect
        known_fields |= {"original_max_position_embeddings"}
    if unknown := given.keys() - known_fields:
        raise ValueError(f"rope scaling fields {sorted(unknown)} are not understood for '{kind}'")
    theta = float(given.pop("rope_theta"))
    lists = {
        n: tuple(map(float, given.pop(n))) for n in ("short_factor", "long_factor") if n in given
    }
    attention = _attention_factor(kind, given, max_positions)
    kept: dict[str, Any] = {n: v for n, v in given.items() if n in Rope.__dataclass_fields__}
    kept |= lists | {"theta": theta, "kind": kind, "attention_factor": attention}
    return Rope(**kept)


def _attention_factor(kind: str, values: Mapping[str, Any], max_positions: int) -> float:
    """The factor on cosines and sines that yarn and longrope imply, unless it is stated."""
    if kind not in ("yarn", "longrope"):
        return 1.0
    if "attention_factor" in values:
        return float(values["attention_factor"])
    original = values["original_max_position_embeddings"]
    factor = values.get("factor", max_positions / original)
    if factor <= 1:
        return 1.0
    if kind == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(original))

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1

    if values.get("mscale") and values.get("mscale_all_dim"):
        return scale(values["mscale"]) / scale(values["mscale_all_dim"])
    return scale(1)

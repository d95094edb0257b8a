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
from ..errors import shortened
from ..model import Model

# Of any size or count: a product of two, three times four bytes each, stays within 63 bits.
LARGEST = 1 << 24
MOST_LAYERS = 1024  # Llama 3.1 405B has 126; what is made of a lie must not fill memory


class Fields:
    """A JSON object's values, remembering which were asked for. null is absent.

    What asks for a value of a kind raises ValueError, naming the field, for one of another kind,
    and for an absent one that has no default.
    """

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

    def size(self, name: str, default: int | None = None, most: int = LARGEST) -> int:
        """A size or a count, from 1."""
        value = self[name] if default is None else self.get(name, default)
        if type(value) is not int or not 1 <= value <= most:
            raise _wrong(name, value, f"a positive integer, at most {most}")
        return value

    def layers(self, name: str) -> int:
        return self.size(name, most=MOST_LAYERS)

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number above zero."""
        value = self[name] if default is None else self.get(name, default)
        if type(value) not in (int, float) or not 0 < value <= _LARGEST_FLOAT:
            raise _wrong(name, value, "a number above zero")
        return float(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of them."""
        values = self[name]
        if not isinstance(values, list):
            raise _wrong(name, values, "a list of numbers")
        return tuple(Fields({name: value}).number(name) for value in values)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise _wrong(name, value, "true or false")
        return value

    def text(self, name: str, default: str) -> str:
        value = self.get(name, default)
        if not isinstance(value, str):
            raise _wrong(name, value, "a string")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings; an absent one is empty."""
        values = self.get(name, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise _wrong(name, values, "a list of strings")
        return values

    def section(self, name: str) -> dict[str, Any]:
        """An object; an absent one is empty."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise _wrong(name, value, "an object")
        return value

    def unread(self) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in self._values.items() if name not in self._read)


_LARGEST_FLOAT = 3.4e38  # of float32, which the graph computes in


def _wrong(name: str, value: object, wanted: str) -> ValueError:
    return ValueError(f"{name} is {shortened(value)}; it must be {wanted}")


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
    name = fields.text(field, default)
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{field} {shortened(name)} is not supported; supported are {known}")
    return ACTIVATIONS[name]


def read_decoder(fields: Fields, **changes: Any) -> Config:
    """The Config of a Llama-like config.json, with a family's `changes`."""
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    common: dict[str, Any] = {
        "architecture": fields["architectures"][0],
        "vocab_size": fields.size("vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": fields.size("intermediate_size"),
        "num_layers": fields.layers("num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": fields.size("num_key_value_heads", heads),
        "head_dim": fields.size("head_dim", hidden // heads),
        "max_seq_len": fields.size("max_position_embeddings", 2048),
        "norm_eps": fields.number("rms_norm_eps", 1e-6),
        "activation": read_activation(fields),
        "tied_head": fields.flag("tie_word_embeddings"),
    }
    if "rope" not in changes:
        changes["rope"] = read_rope(fields)
    return Config(**{**common, **changes})


def read_window(fields: Fields, default: int | None = None) -> int | None:
    """Tokens that a layer with a window sees; None where there are no windows."""
    given = fields.get("sliding_window", default)
    return fields.size("sliding_window", default) if given else None


def read_windows(
    fields: Fields, window: int | None, is_local: Callable[[int], bool]
) -> tuple[int | None, ...]:
    """Each layer's window: by `layer_types`, else as `is_local(layer)` says."""
    types, layers = fields.get("layer_types"), fields.layers("num_hidden_layers")
    if types is None:
        types = [f"{'sliding' if is_local(i) else 'full'}_attention" for i in range(layers)]
    if not isinstance(types, list) or len(types) != layers:
        raise ValueError(f"layer_types is {shortened(types)}; it must be a list of {layers}")
    unknown = {str(kind) for kind in types} - {"sliding_attention", "full_attention"}
    if unknown:
        raise ValueError(
            f"layer_types has {shortened(sorted(unknown))}; supported are sliding and full"
        )
    windows = tuple(window if kind == "sliding_attention" else None for kind in types)
    return windows if any(windows) else ()


def read_rope(fields: Fields) -> Rope:
    """Both dialects: `rope_parameters` (transformers 5), `rope_theta` and `rope_scaling` before."""
    new, old = fields.section("rope_parameters"), fields.section("rope_scaling")
    outside = {
        name: fields.get(name)
        for name in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
    }
    return make_rope({**outside, **(new or old)}, fields.size("max_position_embeddings", 2048))


_ROPE_FIELDS = {
    "default": "",
    "linear": "factor",
    "llama3": "factor low_freq_factor high_freq_factor original_max_position_embeddings",
    "yarn": "factor beta_fast beta_slow truncate original_max_position_embeddings "
    "attention_factor mscale mscale_all_dim",
    "longrope": "short_factor long_factor original_max_position_embeddings attention_factor factor",
}


def make_rope(
    values: Mapping[str, Any], max_positions: int, default_theta: float = 10000.0
) -> Rope:
    """One `rope_parameters` or `rope_scaling`, `rope_theta` inside. Raises ValueError."""
    given = Fields({name: value for name, value in values.items() if value is not None})
    kind = given.text("rope_type", given.text("type", "default"))
    kind = {"su": "longrope"}.get(kind, kind)
    if kind not in _ROPE_FIELDS:
        known = ", ".join(_ROPE_FIELDS)
        raise ValueError(
            f"rope scaling type {shortened(kind)} is not supported; supported are {known}"
        )
    known_fields = {*_ROPE_FIELDS[kind].split(), "rope_theta", "partial_rotary_factor"}
    if kind == "default":  # a config.json may state it beside, without effect
        known_fields |= {"original_max_position_embeddings"}
    if unknown := {name for name, _ in given.unread()} - known_fields:
        raise ValueError(
            f"rope scaling fields {shortened(sorted(unknown))} are not understood for '{kind}'"
        )
    theta = given.number("rope_theta", default_theta)
    if theta <= 1:
        raise ValueError(f"rope_theta is {theta}; it must be above 1")
    return Rope(
        theta=theta,
        kind=kind,  # type: ignore[arg-type]
        partial_rotary_factor=given.number("partial_rotary_factor", 1.0),
        **_scaling(given, kind, max_positions),
    )


def _scaling(given: Fields, kind: str, max_positions: int) -> dict[str, Any]:
    """The fields of `Rope` that one kind of scaling reads."""
    if kind == "linear":
        return {"factor": given.number("factor")}
    if kind == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor")
        found: dict[str, Any] = {name: given.number(name) for name in names}
        if not found["low_freq_factor"] < found["high_freq_factor"]:
            raise ValueError("low_freq_factor must be below high_freq_factor")
        original = given.size("original_max_position_embeddings")
        return found | {"original_max_position_embeddings": original}
    if kind not in ("yarn", "longrope"):
        return {}
    original = given.size("original_max_position_embeddings", max_positions)
    factor = given.number("factor", max_positions / original)
    common = {
        "factor": factor,
        "original_max_position_embeddings": original,
        "attention_factor": _attention_factor(kind, given, factor, original),
    }
    if kind == "longrope":
        return common | {n: given.numbers(n) for n in ("short_factor", "long_factor")}
    return common | {
        "beta_fast": given.number("beta_fast", 32.0),
        "beta_slow": given.number("beta_slow", 1.0),
        "truncate": given.flag("truncate", True),
    }


def _attention_factor(kind: str, given: Fields, factor: float, original: int) -> float:
    """The factor on cosines and sines that yarn and longrope imply, unless it is stated."""
    if given.get("attention_factor") is not None:
        return given.number("attention_factor")
    if factor <= 1:
        return 1.0
    if kind == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(original))

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1

    if given.get("mscale") and given.get("mscale_all_dim"):
        return scale(given.number("mscale")) / scale(given.number("mscale_all_dim"))
    return scale(1)

"""compressed-tensors' `config_groups`: which modules are quantised, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...models.errors import shortened
from ...models.families.family import Fields
from ..patterns import check_pattern
from .fields import check_group_size, check_unread


@dataclass(frozen=True)
class Scheme:
    """How some modules are quantised: one of `config_groups`."""

    format: str
    bits: int
    group_size: int  # -1: by channel
    symmetric: bool
    actorder: str | None
    activation_bits: int


def read_group(name: str, group: Any) -> Fields:
    """One of config_groups. Raises ValueError for what is none."""
    if isinstance(group, dict):
        return Fields(group)
    what = "a preset's name; take a saved model's" if isinstance(group, list) else "no object"
    raise ValueError(f"{name} of config_groups is {what}")


def read_scheme(name: str, group: Fields, layout: str) -> Scheme:
    """Raises ValueError for what is not supported, naming the group."""
    layout = group.text("format", layout)
    if layout not in ("pack-quantized", "int-quantized"):
        raise ValueError(
            f"format {shortened(layout)} is not supported; supported are 'pack-quantized' and"
            " 'int-quantized'"
        )
    if group.get("output_activations"):
        raise ValueError(f"{name} has output_activations; only inputs can be quantised")
    if not group.section("weights"):
        raise ValueError(f"{name} has no weights; quantised activations alone are not supported")
    weights = Fields(group.section("weights"))
    bits, kind = weights.size("num_bits", 8), weights.text("type", "int")
    size = weights.get("group_size")
    implied = "tensor" if size is None else "channel" if size == -1 else "group"
    strategy = weights.text("strategy", implied)
    if kind != "int" or bits not in (4, 8):
        raise ValueError(
            f"{name} has {shortened(kind)} weights of {bits} bits; supported are int of 4 and 8"
        )
    if strategy not in ("group", "channel"):
        raise ValueError(
            f"{name} has weights by {shortened(strategy)}; supported are by 'group' and 'channel'"
        )
    if weights.get("dynamic", False):
        raise ValueError(f"{name} has dynamic weights, which are not supported")
    actorder = _actorder(name, weights.get("actorder"))
    symmetric = weights.flag("symmetric", True)
    inert = ("observer", "observer_kwargs", "scale_dtype", "zp_dtype")
    check_unread(weights, f"{name}.weights", inert)
    return Scheme(
        layout,
        bits,
        check_group_size(size) if strategy == "group" else -1,
        symmetric,
        actorder,
        _activation_bits(name, Fields(group.section("input_activations")), bits),
    )


def _actorder(name: str, stated: Any) -> str | None:
    """Raises ValueError."""
    match stated:
        case None | False:
            return None
        case True | "group" | "dynamic":
            return "group"
        case "weight" | "static":
            return "weight"
    raise ValueError(f"{name} has actorder {shortened(stated)}; supported are 'group' and 'weight'")


def _activation_bits(name: str, fields: Fields, weight_bits: int) -> int:
    """16: as they are. 8: each token is rounded to int8. Raises ValueError for the rest."""
    if not list(fields.unread()):
        return 16
    bits, kind = fields.size("num_bits", 8), fields.text("type", "int")
    if fields.get("dynamic", False) is not True:
        raise ValueError(
            f"{name} has input_activations with static scales; supported are dynamic ones"
        )
    if (weight_bits, bits, kind) != (8, 8, "int"):
        raise ValueError(
            f"{name} has int weights of {weight_bits} bits with {shortened(kind)} activations of"
            f" {bits}; supported is int8 with int8"
        )
    strategy, symmetric = fields.text("strategy", "tensor"), fields.flag("symmetric", True)
    if strategy != "token" or not symmetric:
        raise ValueError(
            f"{name} has input_activations by {shortened(strategy)}, symmetric = {symmetric};"
            " supported are symmetric ones by 'token'"
        )
    inert = ("observer", "observer_kwargs", "scale_dtype", "zp_dtype")
    check_unread(fields, f"{name}.input_activations", inert)
    return 8


def matches(path: str, pattern: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], path) is not None
    return path == pattern


def check_patterns(patterns: list[str]) -> None:
    """Raises ValueError for a "re:" and no regular expression."""
    for pattern in patterns:
        if pattern.startswith("re:"):
            check_pattern(pattern[3:])

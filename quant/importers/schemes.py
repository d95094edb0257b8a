"""compressed-tensors' `config_groups`: which modules are quantised, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...models.families.family import Fields
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


def read_scheme(name: str, group: dict[str, Any], layout: str) -> Scheme:
    """One of config_groups. Raises ValueError for what is not supported, naming the group."""
    layout = group.get("format") or layout
    if layout not in ("pack-quantized", "int-quantized"):
        raise ValueError(
            f"format '{layout}' is not supported; supported are 'pack-quantized' and"
            " 'int-quantized'"
        )
    if group.get("output_activations"):
        raise ValueError(f"{name} has output_activations; only inputs can be quantised")
    if not group.get("weights"):
        raise ValueError(f"{name} has no weights; quantised activations alone are not supported")
    weights = Fields(group["weights"])
    bits, strategy = weights.get("num_bits", 8), weights.get("strategy")
    size = weights.get("group_size")
    if strategy is None:
        strategy = {None: "tensor", -1: "channel"}.get(size, "group")
    if weights.get("type", "int") != "int" or bits not in (4, 8):
        kind = weights.get("type", "int")
        raise ValueError(f"{name} has {kind} weights of {bits} bits; supported are int of 4 and 8")
    if strategy not in ("group", "channel"):
        raise ValueError(
            f"{name} has weights by '{strategy}'; supported are by 'group' and 'channel'"
        )
    if weights.get("dynamic", False):
        raise ValueError(f"{name} has dynamic weights, which are not supported")
    actorder = weights.get("actorder")
    actorder = {"dynamic": "group", "static": "weight", True: "group", False: None}.get(
        actorder, actorder
    )
    if actorder not in (None, "group", "weight"):
        raise ValueError(f"{name} has actorder '{actorder}'; supported are 'group' and 'weight'")
    symmetric = bool(weights.get("symmetric", True))
    inert = ("observer", "observer_kwargs", "scale_dtype", "zp_dtype")
    check_unread(weights, f"{name}.weights", inert)
    return Scheme(
        layout,
        bits,
        check_group_size(size) if strategy == "group" else -1,
        symmetric,
        actorder,
        _activation_bits(name, group.get("input_activations"), bits),
    )


def _activation_bits(name: str, activations: dict[str, Any] | None, weight_bits: int) -> int:
    """16: as they are. 8: each token is rounded to int8. Raises ValueError for the rest."""
    if not activations:
        return 16
    fields = Fields(activations)
    bits, kind = fields.get("num_bits", 8), fields.get("type", "int")
    if fields.get("dynamic", False) is not True:
        raise ValueError(
            f"{name} has input_activations with static scales; supported are dynamic ones"
        )
    if (weight_bits, bits, kind) != (8, 8, "int"):
        raise ValueError(
            f"{name} has int weights of {weight_bits} bits with {kind} activations of {bits};"
            " supported is int8 with int8"
        )
    if fields.get("strategy") != "token" or not fields.get("symmetric", True):
        raise ValueError(
            f"{name} has input_activations by '{fields.get('strategy')}', symmetric ="
            f" {bool(fields.get('symmetric', True))}; supported are symmetric ones by 'token'"
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
            try:
                re.compile(pattern[3:])
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression ({error})") from error

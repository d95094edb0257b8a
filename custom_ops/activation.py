"""The activations between an MLP's two linears, by name: the first one's op computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def activated(x: Tensor, activation: str | None = None, gated: bool = False) -> Tensor:
    """activation(x) [.., K]; where gated, of x [.., 2K] = gate | up, activation(gate) * up. None: x
    as it is."""
    if activation is None:
        return x
    function = ACTIVATIONS[activation]
    if not gated:
        return function(x)
    gate, up = x.chunk(2, dim=-1)
    return function(gate) * up


def rounding_of(reference: Callable[..., Tensor]) -> Callable[..., float]:
    """A declaration's `rounding`: what an activation's own may add to an element's error, four
    units in the last place of the largest output."""

    def rounding(_level: str, *arguments: Any) -> float:
        out = reference(*arguments)
        finite = out[torch.isfinite(out)].abs()
        return 4 * torch.finfo(torch.float32).eps * finite.max().item() if len(finite) else 0.0

    return rounding

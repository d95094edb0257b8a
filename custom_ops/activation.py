"""The activations between an MLP's two linears, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def activated(x: Tensor, activation: str, gated: bool) -> Tensor:
    """activation(x) [.., K]; where gated, of x [.., 2K] = gate | up, activation(gate) * up."""
    function = ACTIVATIONS[activation]
    if not gated:
        return function(x)
    gate, up = x.chunk(2, dim=-1)
    return function(gate) * up

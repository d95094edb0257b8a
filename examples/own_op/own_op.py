"""A module with an op of its own, for `ingot export examples/own_op/own_op.py:make`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import Dim

torch.library.define("mine::squared_relu", "(Tensor x, float slope) -> Tensor")


@torch.library.impl("mine::squared_relu", "CPU")
def squared_relu(x: Tensor, slope: float) -> Tensor:
    """What eager PyTorch runs."""
    return torch.where(x > 0, x * x, slope * x)


@torch.library.register_fake("mine::squared_relu")
def squared_relu_fake(x: Tensor, slope: float) -> Tensor:
    """What tracing runs: the result's shape and dtype."""
    return x.new_empty(x.shape)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(16, 64)
        self.down = torch.nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(torch.ops.mine.squared_relu(self.up(x), 0.1))
        return out


def make() -> tuple[torch.nn.Module, tuple[Tensor, ...], object]:
    """The module, example inputs, and which of their sizes vary."""
    torch.manual_seed(0)
    return Network(), (torch.randn(3, 16),), ({0: Dim("batch", min=1, max=1024)},)

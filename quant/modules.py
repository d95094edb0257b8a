"""The modules that take the place of a model's `Linear` and `Embedding`: codes and one op call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..custom_ops.activation import activated
from ..custom_ops.quantised_layout import PANEL, Layout, layout_of, pack
from ..models.layers import Embedding, Linear, PieceDtype, Stored, parameter
from .recipe import Rule
from .weight import QuantisedWeight, weight_error

Rounding = Callable[[Tensor], QuantisedWeight]


@dataclass(frozen=True)
class Quality:
    """How far a quantised matrix is from its float one: root mean squares, relative.

    weight_error: of W. output_error: of the outputs for inputs that calibration texts made, texts
    that no search saw; rounded_error: what rounding to nearest alone would give; None without
    texts. alpha: the exponent of the input scales that a search found, None if none helped;
    scale_in: the module of the block that they were folded into, or "input_scale".
    """

    weight_error: float
    output_error: float | None = None
    rounded_error: float | None = None
    alpha: float | None = None
    scale_in: str | None = None


def packed(weight: QuantisedWeight) -> Tensor:
    return pack(
        weight.codes,
        weight.scales,
        weight.zeros,
        weight.bits,
        weight.group_size,
        weight.multipliers,
    )


def _empty(rule: Rule, rows: int, columns: int) -> torch.nn.Parameter:
    """The likeliest shape of a packed weight, until one is filled."""
    assert rule.bits is not None
    size, zeros = rule.stored_group_size, not rule.symmetric
    layout = Layout(rule.bits, size, torch.float16, zeros, rule.multiplied)
    shape = (-(-rows // PANEL), -(-columns // size), layout.block_bytes)
    return parameter(shape, torch.uint8)


class Quantised(Stored):
    """A matrix [rows, columns] of `bits`-bit codes, packed. quality: once its weight is there."""

    filling = "quantise"
    weight: torch.nn.Parameter
    quality: Quality | None = None

    def __init__(self, rule: Rule, rounding: Rounding | None, rows: int, columns: int) -> None:
        super().__init__()
        assert rule.bits is not None
        self._rounding = rounding
        self.rule, self.bits = rule, rule.bits
        self.rows, self.columns = rows, columns
        self.weight = _empty(rule, rows, columns)

    @property
    def layout(self) -> str:
        """As the manifest names it."""
        return layout_of(self.weight, self.bits).name

    def rounded(self, matrix: Tensor) -> QuantisedWeight:
        """A matrix [rows, columns] by the module's rounding."""
        assert self._rounding is not None
        weight = self._rounding(matrix)
        self.quality = Quality(weight_error(weight, matrix))
        return weight

    def parameter_count(self, path: str, name: str) -> int:
        return self.rows * self.columns if name == "weight" else self.rows


class QuantisedLinear(Quantised):
    """A `Linear` over codes: y = (x[input_perm] * input_scale) W^T + b, x rounded as it is read."""

    input_scale: Tensor | None
    input_perm: Tensor | None

    def __init__(self, linear: Linear, rule: Rule, rounding: Rounding | None = None) -> None:
        super().__init__(rule, rounding, linear.outputs, linear.inputs)
        self.bias = linear.bias
        self.register_buffer("input_scale", None)
        self.register_buffer("input_perm", None)
        self._linear = [linear]  # in a list: it is no part of this module

    @property
    def linear(self) -> Linear:
        """What it stands for."""
        return self._linear[0]

    @property
    def rounds(self) -> bool:
        """As a `Linear`'s."""
        return self.rule.activation_bits == 8

    def forward(self, x: Tensor, activation: str | None = None, gated: bool = False) -> Tensor:
        name = f"linear_w{self.bits}"
        op = getattr(torch.ops.ingot, f"{name}_activated" if activation else name)
        out: Tensor = op(
            x,
            self.weight,
            self.bias,
            self.input_scale,
            self.input_perm,
            self.rows,
            self.rule.activation_bits,
            *((activation, gated) if activation else ()),
        )
        return out

    def hold(self, weight: QuantisedWeight) -> Tensor:
        """The packed weight; its bits, input scale and permutation are kept here."""
        self.bits = weight.bits
        self.input_scale, self.input_perm = weight.input_scale, weight.input_perm
        return packed(weight)

    def pieces(self, path: str, name: str) -> dict[str, tuple[int, ...]]:
        return self.linear.pieces(path, name)

    def piece_dtype(self, name: str) -> PieceDtype:
        return "float" if name == "weight" else torch.float32  # rounding widens a slice at a time

    def fill(self, name: str, pieces: list[Tensor]) -> Tensor:
        if name == "bias":
            return self.linear.fill(name, pieces)
        return self.hold(self.rounded(self.linear.matrix(pieces)))

    def extra_repr(self) -> str:
        return f"{self.columns}, {self.rows}, {self.bits} bits, a{self.rule.activation_bits}"


class _Part(Linear):
    """One of the checkpoint's linears that a `SplitLinear` stands for."""

    def pieces(self, path: str, name: str) -> dict[str, tuple[int, ...]]:
        whole, _, _ = path.rsplit(".", 2)  # without "parts" and its name
        return super().pieces(whole, name)


class SplitLinear(torch.nn.Module):
    """A `Linear` of parts that cannot be one: they differ in bits, or in how they read x."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        bias, dtype = linear.bias is not None, linear.weight.dtype
        self.parts = torch.nn.ModuleDict(
            {
                name: _Part(linear.inputs, {name: rows}, bias, dtype, linear.transposed)
                for name, rows in linear.parts.items()
            }
        ).to("meta")

    @property
    def rounds(self) -> bool:
        """As a `Linear`'s."""
        return all(part.rounds for part in self.parts.values())

    def forward(self, x: Tensor, activation: str | None = None, gated: bool = False) -> Tensor:
        y = torch.cat([part(x) for part in self.parts.values()], dim=-1)
        return activated(y, activation, gated)


class QuantisedEmbedding(Quantised):
    """An `Embedding` over codes."""

    def __init__(self, embedding: Embedding, rule: Rule, rounding: Rounding) -> None:
        super().__init__(rule, rounding, embedding.vocab_size, embedding.hidden_size)

    def forward(self, tokens_T: Tensor) -> Tensor:
        out: Tensor = torch.ops.ingot.quantised_embedding(
            tokens_T, self.weight, self.columns, self.bits
        )
        return out

    def pieces(self, path: str, name: str) -> dict[str, tuple[int, ...]]:
        return {f"{path}.{name}": (self.rows, self.columns)}

    def piece_dtype(self, name: str) -> PieceDtype:
        return "float" if name == "weight" else torch.float32  # rounding widens a slice at a time

    def fill(self, name: str, pieces: list[Tensor]) -> Tensor:
        return packed(self.rounded(*pieces))

    def extra_repr(self) -> str:
        return f"{self.rows}, {self.columns}, {self.bits} bits"


def replace(model: torch.nn.Module, path: str, module: Any) -> None:
    """Put `module` where the model has another."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)

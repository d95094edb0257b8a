"""What the searches share: the error that quantising makes in a linear's output.

A search compares candidates for the scales s [K] of a linear's inputs: the weight W [N, K] becomes
Q(W s), and its input x / s, which is the same product but for the rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..custom_ops.quantised_linear import as_multiplied, round_activations
from .recipe import Rule
from .weight import QuantisedWeight, round_to_nearest, round_with_multipliers, row_slices

ROWS = 512  # of x, at most, that scales are compared on


@dataclass(frozen=True)
class Found:
    """scale: s float32 [K], or None for ones; alpha: the exponent that made it. clip: a factor for
    the range of each of W's groups [N, G], or None."""

    scale: Tensor | None = None
    alpha: float | None = None
    clip: Tensor | None = None


def quantise(weight: Tensor, rule: Rule, clip: Tensor | float | None = None) -> QuantisedWeight:
    """W [N, K] rounded as a rule says. `clip`: of each group's range, as in `round_to_nearest`."""
    assert rule.bits is not None
    if rule.multiplied:
        return round_with_multipliers(weight, clip)
    return round_to_nearest(weight, rule.bits, rule.group_size, rule.symmetric, clip)


def rounded_input(x: Tensor, rule: Rule) -> Tensor:
    """x [M, K] as the ops see it. 16-bit integers are exact beside weights of 8 bits."""
    if rule.activation_bits == 16:
        return x
    return round_activations(x, rule.stored_group_size, rule.activation_bits)


def squared_error(weight: Tensor, x: Tensor, y: Tensor, scale: Tensor, rule: Rule) -> float:
    """The sum over outputs y = x W^T of (y - (x / s) Q(W s)^T)^2."""
    scaled = rounded_input(x / scale, rule)
    error = 0.0
    for rows in row_slices(weight):
        out = scaled @ quantise(weight[rows] * scale, rule).matrix().t()
        error += float((out - y[:, rows]).double().square().sum())
    return error


def best(weight: Tensor, x: Tensor, candidates: dict[float, Tensor], rule: Rule) -> Found:
    """Of scales by their alpha, and none, those with the least error; of equals the first."""
    x = x[:: -(-len(x) // ROWS)]
    y = x @ weight.t()
    found = Found()
    least = squared_error(weight, x, y, torch.ones(weight.shape[1]), rule)
    for alpha, scale in candidates.items():
        error = squared_error(weight, x, y, scale, rule)
        if error < least:
            least, found = error, Found(scale, alpha)
    return found


def output_error(matrix: Tensor, x: Tensor, weight: QuantisedWeight, rule: Rule) -> float:
    """How far the op's outputs are from x W^T: root mean squares, relative; 0 if those are 0."""
    scaled = rounded_input(as_multiplied(x, weight.input_scale, None), rule)
    wrong = right = 0.0
    for rows in row_slices(matrix):
        exact = x @ matrix[rows].t()
        wrong += float((scaled @ weight.rows(rows).matrix().t() - exact).double().square().sum())
        right += float(exact.double().square().sum())
    return (wrong / right) ** 0.5 if right else 0.0

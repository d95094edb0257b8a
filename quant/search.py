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
from .weight import QuantisedWeight, round_to_nearest, row_slices


@dataclass(frozen=True)
class Found:
    """scale: s float32 [K], or None for ones; alpha: the exponent that made it. clip: a factor for
    the range of each of W's groups [N, G], or 1."""

    scale: Tensor | None = None
    alpha: float | None = None
    clip: Tensor | float = 1.0


def quantise(weight: Tensor, rule: Rule, clip: Tensor | float = 1.0) -> QuantisedWeight:
    """W [N, K] rounded as a rule says."""
    assert rule.bits is not None
    return round_to_nearest(weight, rule.bits, rule.group_size, rule.symmetric, clip)


def rounded_input(x: Tensor, rule: Rule) -> Tensor:
    """x [M, K] as the ops see it. 16-bit integers are exact beside weights of 8 bits."""
    if rule.activation_bits == 16:
        return x
    return round_activations(x, rule.group_size, rule.activation_bits)


def squared_errors(weight: Tensor, x: Tensor, scales: list[Tensor], rule: Rule) -> list[float]:
    """For each of `scales`: sum over outputs of (x W^T - (x / s) Q(W s)^T)^2."""
    inputs = [rounded_input(x / scale, rule) for scale in scales]
    errors = [0.0] * len(scales)
    for rows in row_slices(weight):
        exact = x @ weight[rows].t()
        for i, (scale, scaled) in enumerate(zip(scales, inputs, strict=True)):
            out = scaled @ quantise(weight[rows] * scale, rule).matrix().t()
            errors[i] += float((out - exact).double().square().sum())
    return errors


def best(weight: Tensor, x: Tensor, candidates: dict[float, Tensor], rule: Rule) -> Found:
    """Of scales by their alpha, and none, those with the least error; of equals the first."""
    scales = [torch.ones(weight.shape[1]), *candidates.values()]
    errors = squared_errors(weight, x, scales, rule)
    chosen = errors.index(min(errors))
    if chosen == 0:
        return Found()
    return Found(scales[chosen], list(candidates)[chosen - 1])


def output_error(matrix: Tensor, x: Tensor, weight: QuantisedWeight, rule: Rule) -> float:
    """How far the op's outputs are from x W^T: root mean squares, relative; 0 if those are 0."""
    scaled = rounded_input(as_multiplied(x, weight.input_scale, None), rule)
    wrong = right = 0.0
    for rows in row_slices(matrix):
        exact = x @ matrix[rows].t()
        wrong += float((scaled @ weight.rows(rows).matrix().t() - exact).double().square().sum())
        right += float(exact.double().square().sum())
    return (wrong / right) ** 0.5 if right else 0.0

"""A model is quantised block by block in one pass over the calibration texts.

Each block runs with float weights while its linears' inputs are observed; then they become
quantised ones, and the block's second run gives the next block what it will see in use. At no time
are there more float weights than of one block, nor more float32 copies than of one linear.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..custom_ops.linear import unpack_linear
from ..models import CheckpointError, Keep, held
from ..models.layers import Linear, filled
from . import awq, fold, smooth
from .modules import Quality, QuantisedLinear, replace
from .observe import Call, Seen, blocks_of, first_calls, observe
from .recipe import Rule
from .search import Found, output_error, quantise
from .weight import QuantisedWeight, weight_error


def _round(weight: Tensor, seen: Seen, rule: Rule) -> Found:
    return Found()


_SEARCHES: dict[str, Callable[[Tensor, Seen, Rule], Found]] = {
    "round": _round,
    "awq": awq.search,
    "smooth": smooth.search,
}


def calibrate(
    model: Any,
    rules: dict[str, Rule],
    tokens: Tensor,
    progress: Callable[[str], None],
    fill: Callable[[str], None] = lambda path: None,
    keep: Keep = held,
) -> None:
    """Quantise the linears of `rules`, paths in the model's blocks, on `tokens` [samples, L].

    `fill` reads the weights of the block at a path; `keep`, as for `Plan.fill`, has what became of
    them.
    `progress` is told of each block as it begins. Raises CheckpointError for weights or inputs that
    are not finite.
    """
    calls = first_calls(model, tokens)
    blocks = blocks_of(model)
    for number, (path, block) in enumerate(blocks.items()):
        progress(f"quantise layer {number + 1} of {len(blocks)}")
        fill(path)
        mine = {
            name: rules[f"{path}.{name}"]
            for name, _ in block.named_modules()
            if f"{path}.{name}" in rules
        }
        for name in mine:
            _check_finite(f"{path}.{name}", "weights", block.get_submodule(name).weight)
        seen = observe(block, mine, partial(_run, block, number, calls), tokens.numel())
        for name, it in seen.items():
            _check_finite(f"{path}.{name}", "inputs on the calibration texts", it.mean)
        _quantise_block(block, mine, seen)
        for call in calls:
            call.x = block(call.x, *call.rest[number])
        for parameter in block.parameters():
            parameter.data = keep(parameter.data)


def _run(block: nn.Module, number: int, calls: list[Call]) -> None:
    for call in calls:
        block(call.x, *call.rest[number])


def _check_finite(path: str, what: str, values: Any) -> None:
    if not bool(torch.isfinite(values).all()):
        raise CheckpointError(f"{path}: its {what} hold NaN or infinity; it cannot be quantised")


def _quantise_block(block: nn.Module, rules: dict[str, Rule], seen: dict[str, Seen]) -> None:
    """Backwards: a linear's scales may go into the rows of one before it."""
    sources = fold.sources_of(block)
    factors: dict[str, Tensor] = {}  # of a linear's outputs
    for name in reversed(rules):
        linear, rule, x = _linear(block, name), rules[name], seen[name].held_back
        matrix = unpack_linear(linear.weight, linear.outputs, linear.inputs).float()
        weight, alpha = _quantise(matrix, seen[name], rule)
        quality = Quality(
            weight_error(weight, matrix),
            output_error(matrix, x, weight, rule),
            output_error(matrix, x, quantise(matrix, rule), rule),
            alpha,
            None if weight.input_scale is None else "input_scale",
        )
        source = sources.get(name)
        if weight.input_scale is not None and source and (source.is_norm or source.module in rules):
            if source.is_norm:
                fold.into_norm(block.get_submodule(source.module), weight.input_scale)
            else:
                factors[source.module] = torch.ones(_linear(block, source.module).outputs)
                factors[source.module][source.rows] = weight.input_scale
            weight = dataclasses.replace(weight, input_scale=None)
            quality = dataclasses.replace(quality, scale_in=source.module)
        module = QuantisedLinear(linear, rule)
        if name in factors:
            weight = fold.into_rows(weight, factors[name])
            if module.bias is not None:
                module.bias = filled(module.bias * factors[name])
        module.weight = filled(module.hold(weight))
        module.quality = quality
        replace(block, name, module)
        linear.to("meta")  # it is kept as what the module stands for, without its weights


def _linear(block: nn.Module, name: str) -> Linear:
    linear = block.get_submodule(name)
    assert isinstance(linear, Linear)
    return linear


def _quantise(matrix: Tensor, seen: Seen, rule: Rule) -> tuple[QuantisedWeight, float | None]:
    """The weight, with its input scale, and that one's alpha."""
    found = _SEARCHES[rule.method](matrix, seen, rule)
    if found.scale is None:
        return quantise(matrix, rule, found.clip), None
    weight = quantise(matrix * found.scale, rule, found.clip)
    return dataclasses.replace(weight, input_scale=1 / found.scale), found.alpha

"""Quantisation: recipes that swap a model's linears for quantised ones.

>>> model = quant.load(models.plan(Path("demo/checkpoint")), quant.find("int4"))
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict
from functools import partial
from typing import Any

from torch import Tensor

from ..models import CheckpointError, Model, Plan
from ..models.encoder import ImageClassifier
from ..models.layers import Embedding, Linear
from .calibration import Calibration
from .layerwise import calibrate
from .modules import Quality, Quantised, QuantisedEmbedding, QuantisedLinear, replace
from .observe import blocks_of
from .recipe import RECIPES, Recipe, Rule, find
from .weight import QuantisedWeight, round_to_nearest

__all__ = [
    "RECIPES",
    "Calibration",
    "Quality",
    "Quantised",
    "QuantisedLinear",
    "QuantisedWeight",
    "Recipe",
    "Rule",
    "find",
    "load",
    "report",
    "round_to_nearest",
    "swap",
]


def _silent(_: str) -> None:
    pass


def load(
    plan: Plan,
    recipe: Recipe,
    calibration: Calibration | None = None,
    progress: Callable[[str], None] = _silent,
) -> Model:
    """The checkpoint's model, quantised: each linear's `quality`, see `report`, says how well.

    Without calibration texts weights are rounded as they are read, so there are never float ones in
    memory. With them the linears in the model's blocks are quantised layer by layer, from weights
    in the plan's dtype; a recipe whose methods need none is then only measured on them. `progress`
    is told of each layer. Raises CheckpointError.
    """
    model: Model = plan.model
    found = _modules(model)
    recipe.check_modules(found)
    tokens = None
    if isinstance(model, ImageClassifier):
        if recipe.calibrated:
            raise CheckpointError(
                f"recipe {recipe.name} is calibrated on texts, which {model.config.architecture}"
                " does not read; take one whose method is round, such as int8 or int4"
            )
    elif calibration is not None:
        config = model.config
        tokens = calibration.read(plan.checkpoint, config.max_seq_len, config.vocab_size)
    elif recipe.calibrated:
        raise CheckpointError(
            f"recipe {recipe.name} is calibrated on texts; give --calib FILE, of texts like those"
            " the model will see"
        )
    blocks = () if tokens is None else tuple(f"{path}." for path in blocks_of(model))
    later = {path for path, m in found.items() if isinstance(m, Linear) and path.startswith(blocks)}
    swap(model, recipe, keep=later)
    plan.fill()
    if tokens is not None:
        rules = {path: rule for path in found if path in later and (rule := recipe.rule(path))}
        calibrate(model, rules, tokens, progress)
    return model


def swap(model: Model, recipe: Recipe, keep: Collection[str] = ()) -> None:
    """Replace the modules of a model that has no weights yet by those which round theirs, but for
    those to `keep`.

    A tied head goes as the embedding, whose tensor it is.
    """
    for path, module in _modules(model).items():
        rule = recipe.rule(path)
        if rule is None or path in keep:
            continue
        rounding = partial(_round, path, rule)
        if isinstance(module, Linear):
            replace(model, path, QuantisedLinear(module, rule, rounding))
        else:
            replace(model, path, QuantisedEmbedding(module, rule, rounding))


def report(model: Model) -> list[dict[str, Any]]:
    """How well each quantised matrix is: `module`, its path, and what its `Rule` and `Quality`
    say. Without those that are another's, and those of a checkpoint that was quantised."""
    return [
        {"module": path, **_facts(module.rule), **asdict(module.quality)}
        for path, module in model.named_modules()
        if isinstance(module, Quantised) and module.quality is not None
    ]


def _facts(rule: Rule) -> dict[str, Any]:
    return {name: value for name, value in asdict(rule).items() if name != "modules"}


def _modules(model: Model) -> dict[str, Linear | Embedding]:
    """What recipes speak of, by path."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, Linear | Embedding)
    }


def _round(path: str, rule: Rule, matrix: Tensor) -> QuantisedWeight:
    assert rule.bits is not None
    try:
        return round_to_nearest(matrix, rule.bits, rule.group_size, rule.symmetric)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; it cannot be quantised") from error

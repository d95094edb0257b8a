"""Quantisation: recipes that swap a model's linears for quantised ones.

>>> model = quant.load(models.plan(Path("demo/checkpoint")), quant.find("int4"))
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace as replace_field
from functools import partial
from typing import Any

from torch import Tensor

from ..models import CheckpointError, Model, Plan
from ..models.layers import Embedding, Linear
from . import importers
from .imported import swap_imported
from .modules import Quantised, QuantisedEmbedding, QuantisedLinear, replace
from .recipe import RECIPES, Recipe, Rule, find
from .weight import QuantisedWeight, round_to_nearest

__all__ = [
    "RECIPES",
    "Quantised",
    "QuantisedLinear",
    "QuantisedWeight",
    "Recipe",
    "Rule",
    "find",
    "load",
    "round_to_nearest",
    "swap",
]


def load(plan: Plan, recipe: Recipe | None, activation_bits: int | None = None) -> Model:
    """The checkpoint's model, quantised as it is read if there is a recipe.

    What a checkpoint has quantised already stays as it is, and the recipe is for the rest.
    activation_bits, if given, is for both. Raises CheckpointError.
    """
    importer = importers.find(plan.config, plan.checkpoint, plan.files.keys())
    if importer is not None:
        swap_imported(plan, importer)
    if recipe is not None:
        swap(plan.model, recipe)
    model: Model = plan.fill()
    if activation_bits is not None:
        set_activation_bits(model, activation_bits)
    if importer is not None or recipe is not None:
        model.quantization = describe(model, recipe, importer)
    return model


def set_activation_bits(model: Model, bits: int) -> None:
    """Of every quantised linear. Raises CheckpointError if there is none."""
    linears = [module for module in model.modules() if isinstance(module, QuantisedLinear)]
    if not linears:
        raise CheckpointError("--activation-bits is for quantised weights; give --quant too")
    for linear in linears:
        linear.rule = replace_field(linear.rule, activation_bits=bits)
        linear.rule.check("--activation-bits")


def describe(
    model: Model, recipe: Recipe | None, importer: importers.Importer | None = None
) -> dict[str, Any]:
    """For the manifest: the recipe, and how many modules have which layout."""
    names = [part for part in (importer and importer.recipe_name, recipe and recipe.name) if part]
    layouts = Counter(m.layout for m in model.modules() if isinstance(m, Quantised))
    return {
        "name": ", ".join(names),
        "imported": None if importer is None else importer.describe(),
        "rules": [] if recipe is None else recipe.to_dict()["rules"],
        "activation_bits": sorted(
            {m.rule.activation_bits for m in model.modules() if isinstance(m, QuantisedLinear)}
        ),
        "layouts": dict(sorted(layouts.items())),
    }


def swap(model: Model, recipe: Recipe) -> None:
    """Replace the modules of a model that has no weights yet by those which round theirs.

    A tied head goes as the embedding, whose tensor it is.
    """
    found = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, Linear | Embedding)
    }
    recipe.check_modules(found)
    for path, module in found.items():
        rule = recipe.rule(path)
        if rule is None:
            continue
        rounding = partial(_round, path, rule)
        if isinstance(module, Linear):
            replace(model, path, QuantisedLinear(module, rule, rounding))
        else:
            replace(model, path, QuantisedEmbedding(module, rule, rounding))


def _round(path: str, rule: Rule, matrix: Tensor) -> QuantisedWeight:
    assert rule.bits is not None
    try:
        return round_to_nearest(matrix, rule.bits, rule.group_size, rule.symmetric)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; it cannot be quantised") from error

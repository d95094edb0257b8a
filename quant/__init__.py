"""Quantisation: recipes that swap a model's linears for quantised ones.

>>> model = quant.load(models.plan(Path("demo/checkpoint")), quant.find("int4"))
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import asdict
from functools import partial
from typing import Any

from torch import Tensor

from ..models import CheckpointError, Keep, Model, Phase, Plan, held, no_phase
from ..models.encoder import ImageClassifier
from ..models.layers import Embedding, Linear
from . import importers
from .calibration import Calibration
from .imported import swap_imported
from .layerwise import calibrate
from .measure import compare, measure
from .modules import Quality, Quantised, QuantisedEmbedding, QuantisedLinear, replace
from .observe import blocks_of
from .recipe import RECIPES, Recipe, Rule, check_activation_bits, find
from .search import quantise
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
    "compare",
    "describe",
    "find",
    "is_float",
    "load",
    "measure",
    "report",
    "round_to_nearest",
    "swap",
]


def _silent(_: str) -> None:
    pass


def load(
    plan: Plan,
    recipe: Recipe | None,
    calibration: Calibration | None = None,
    *,
    activation_bits: int | None = None,
    progress: Callable[[str], None] = _silent,
    phase: Phase = no_phase,
    keep: Keep = held,
) -> Model:
    """The checkpoint's model, quantised if there is a recipe: each linear's `quality`, see
    `report`, says how well.

    Without calibration texts weights are rounded as they are read, so there are never float ones in
    memory. With them the linears in the model's blocks are quantised layer by layer, from weights
    in the plan's dtype; a recipe whose methods need none is then only measured on them. What a
    checkpoint has quantised already stays as it is, and the recipe is for the rest;
    activation_bits, if given, is for both. `progress` is told of each layer, `phase` brackets the
    parts of the work; keep: as for `Plan.fill`. Raises CheckpointError.
    """
    model: Model = plan.model
    importer = importers.find(plan.config, plan.checkpoint, plan.files.keys())
    if activation_bits is not None:
        if importer is None and recipe is None:
            raise CheckpointError("--activation-bits is for quantised weights; give --quant too")
        check_activation_bits(activation_bits)
        recipe = recipe and recipe.with_activation_bits(activation_bits)
    if importer is not None:
        swap_imported(plan, importer, activation_bits or importer.activation_bits)
    if recipe is None:
        plan.fill(phase, keep)
    else:
        _quantise(plan, recipe, calibration, progress, phase, keep)
        _give_back_memory()
    if importer is not None or recipe is not None:
        model.quantization = describe(model, recipe, importer)
    return model


def _give_back_memory() -> None:
    """To the system, what the allocator keeps of all the weights that went through it: compilers
    want it next. glibc's; others have no such call."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def is_float(plan: Plan, recipe: Recipe | None, activation_bits: int | None) -> bool:
    """Whether `load` with these takes the weights as they are. Raises CheckpointError."""
    if recipe is not None or activation_bits is not None:
        return False
    return importers.find(plan.config, plan.checkpoint, plan.files.keys()) is None


def _quantise(
    plan: Plan,
    recipe: Recipe,
    calibration: Calibration | None,
    progress: Callable[[str], None],
    phase: Phase,
    keep: Keep,
) -> None:
    model, found = plan.model, _modules(plan.model)
    recipe.check_modules(found)
    tokens = _tokens(plan, recipe, calibration)
    blocks = () if tokens is None else tuple(blocks_of(model))
    inside = tuple(f"{path}." for path in blocks)
    later = {path for path, m in found.items() if isinstance(m, Linear) and path.startswith(inside)}
    swap(model, recipe, keep=later)
    plan.fill(phase, keep, but=blocks)
    if tokens is not None:
        rules = {path: rule for path in found if path in later and (rule := recipe.rule(path))}
        with phase("quantise"):
            calibrate(model, rules, tokens, progress, plan.fill_module, keep)


def _tokens(plan: Plan, recipe: Recipe, calibration: Calibration | None) -> Tensor | None:
    """The calibration texts' tokens, if there are any."""
    config = plan.model.config
    if isinstance(plan.model, ImageClassifier):
        if recipe.needs_texts:
            raise CheckpointError(
                f"recipe {recipe.name} is calibrated on texts, which {config.architecture} does not"
                " read; take one whose method is round, such as int8 or int4"
            )
        return None
    if calibration is not None:
        return calibration.read(plan.checkpoint, config.max_seq_len, config.vocab_size)
    if recipe.needs_texts:
        raise CheckpointError(
            f"recipe {recipe.name} is calibrated on texts; give --calib FILE, of texts like those"
            " the model will see"
        )
    return None


def describe(
    model: Model, recipe: Recipe | None, importer: importers.Importer | None = None
) -> dict[str, Any]:
    """For the manifest: the recipe, and how many modules have which layout."""
    names = [part for part in (importer and importer.recipe_name, recipe and recipe.name) if part]
    quantised = [module for module in model.modules() if isinstance(module, Quantised)]
    layouts = Counter(module.layout for module in quantised)
    return {
        "name": ", ".join(names),
        "imported": None if importer is None else importer.describe(),
        "rules": [] if recipe is None else recipe.to_dict()["rules"],
        "activation_bits": sorted({m.rule.activation_bits for m in quantised}),
        "layouts": dict(sorted(layouts.items())),
    }


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
        return quantise(matrix, rule)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; it cannot be quantised") from error

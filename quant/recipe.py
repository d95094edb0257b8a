"""Recipes: which modules become quantised, and how. A recipe is data, in the manifest and in files.

    {"name": "mine", "rules": [
        {"modules": "lm_head|.*embed_tokens", "bits": 8, "group_size": 128},
        {"modules": ".*layers\\\\.0\\\\..*", "bits": null},
        {"modules": ".*", "bits": 4, "group_size": 64, "activation_bits": 8, "method": "awq"}]}

For each module the first rule decides whose `modules`, a regular expression, matches its whole
path; null bits, or no rule, leave it in the model's dtype.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .. import json_text
from ..custom_ops.quantised_layout import GROUP_SIZES, MULTIPLIED, MULTIPLIED_GROUP
from ..models import CheckpointError
from ..models.errors import shortened
from .patterns import check_pattern

Method = Literal["round", "awq", "smooth"]
ACTIVATION_BITS = (8, 16, 32)


@dataclass(frozen=True)
class Rule:
    """bits: 4, 8 or None. activation_bits: 8, 16 or 32, of the integers that x is rounded to.

    double_quant: the scales of symmetric 4-bit groups of 32 are multiples of one that 128 columns
    share (round_with_multipliers): faster and smaller than float16 for each, and no less exact.
    Elsewhere it says nothing.

    method: "round" to nearest; "awq" (Lin et al. 2023) and "smooth" (SmoothQuant, Xiao et al. 2023)
    first scale the inputs by what calibration texts show of them: those of linears in the model's
    blocks. All else, embeddings and heads, is rounded to nearest whatever the method.
    """

    modules: str
    bits: int | None
    group_size: int = 128
    symmetric: bool = True
    activation_bits: int = 16
    method: Method = "round"
    double_quant: bool = True

    @property
    def multiplied(self) -> bool:
        """Whether double_quant applies."""
        fits = self.bits == 4 and self.group_size == MULTIPLIED and self.symmetric
        return self.double_quant and fits

    @property
    def stored_group_size(self) -> int:
        """Of the layout, by which x is rounded too."""
        return MULTIPLIED_GROUP if self.multiplied else self.group_size

    def check(self, where: str) -> None:
        """Raises CheckpointError, naming the field that cannot be."""
        allowed: dict[str, tuple[Any, ...]] = {
            "bits": (4, 8, None),
            "group_size": GROUP_SIZES,
            "symmetric": (True, False),
            "double_quant": (True, False),
            "activation_bits": ACTIVATION_BITS,
            "method": ("round", "awq", "smooth"),
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if not any(value == known and type(value) is type(known) for known in values):
                known = ", ".join("null" if value is None else str(value) for value in values)
                raise CheckpointError(
                    f"{where}: {name} is {shortened(value)}; it is one of {known}"
                )
        try:
            check_pattern(self.modules)
        except ValueError as error:
            raise CheckpointError(f"{where}: modules {error}") from error


@dataclass(frozen=True)
class Recipe:
    name: str
    rules: tuple[Rule, ...]

    @property
    def needs_texts(self) -> bool:
        """Whether it cannot do without calibration. "smooth" rounds to nearest then."""
        return any(rule.bits is not None and rule.method == "awq" for rule in self.rules)

    def with_activation_bits(self, bits: int) -> Recipe:
        rules = (dataclasses.replace(rule, activation_bits=bits) for rule in self.rules)
        return dataclasses.replace(self, rules=tuple(rules))

    def rule(self, path: str) -> Rule | None:
        """What to do with the module at `path`, if anything."""
        for rule in self.rules:
            if re.fullmatch(rule.modules, path):
                return rule if rule.bits is not None else None
        return None

    def check_modules(self, paths: Iterable[str]) -> None:
        """Raises CheckpointError for a rule that matches none of them, or if nothing is quantised.

        A rule of a recipe that is built in may match none: not every model has a head.
        """
        paths = list(paths)
        for rule in self.rules:
            built_in = self.name in RECIPES
            if not built_in and not any(re.fullmatch(rule.modules, path) for path in paths):
                raise CheckpointError(
                    f"recipe {self.name}: modules {rule.modules!r} names none of the model's, such"
                    f" as {paths[0]}; correct the pattern"
                )
        if all(self.rule(path) is None for path in paths):
            raise CheckpointError(f"recipe {self.name} quantises no module of this model")

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "rules": [asdict(rule) for rule in self.rules]}


def from_dict(values: Any, where: str) -> Recipe:
    """Raises CheckpointError for what is no recipe."""
    known = {field.name for field in dataclasses.fields(Rule)}
    rules = values.get("rules") if isinstance(values, dict) else None
    if not isinstance(rules, list) or not rules:
        raise CheckpointError(f'{where} is no recipe: write {{"name": ..., "rules": [...]}}')
    for rule in rules:
        if not isinstance(rule, dict) or not {"modules", "bits"} <= rule.keys() <= known:
            raise CheckpointError(
                f"{where}: a rule has modules and bits, and may have"
                f" {', '.join(sorted(known - {'modules', 'bits'}))}; this is {shortened(rule)}"
            )
    recipe = Recipe(str(values.get("name", Path(where).stem)), tuple(Rule(**r) for r in rules))
    for rule in recipe.rules:
        rule.check(where)
    return recipe


def check_activation_bits(bits: int) -> None:
    """Raises CheckpointError if the ops do not know them."""
    if bits not in ACTIVATION_BITS:
        known = ", ".join(map(str, ACTIVATION_BITS))
        raise CheckpointError(f"--activation-bits {bits} is none of {known}")


def find(name: str, group_size: int | None = None) -> Recipe:
    """A recipe by its name, or from a JSON file. group_size: of those it quantises below 8 bits.

    Raises CheckpointError.
    """
    if name in RECIPES:
        recipe = RECIPES[name]
    elif name.endswith(".json"):
        try:
            recipe = from_dict(json_text.read(Path(name)), name)
        except (OSError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{name} cannot be read as a recipe ({error})") from error
    else:
        known = ", ".join(RECIPES)
        raise CheckpointError(f"no recipe '{name}'; name one of {known}, or a .json file")
    if group_size is None:
        return recipe
    if group_size not in GROUP_SIZES:
        raise CheckpointError(f"--group-size {group_size} is none of 32, 64, 128")
    last = dataclasses.replace(recipe.rules[-1], group_size=group_size)
    return dataclasses.replace(recipe, rules=(*recipe.rules[:-1], last))


# The embedding and the head are kept at 8 bits: the head's error goes straight into the logits, and
# the two are one tensor where they are tied.
_HEAD = Rule(r"lm_head|.*(embed_tokens|word_embeddings)", 8)


def _recipe(name: str, **rule: Any) -> Recipe:
    head = dataclasses.replace(_HEAD, activation_bits=rule.get("activation_bits", 16))
    return Recipe(name, (head, Rule(".*", **rule)))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _recipe("int8", bits=8),
        _recipe("int8-a8", bits=8, activation_bits=8, method="smooth"),
        _recipe("int4", bits=4, group_size=32),
        _recipe("int4-a8", bits=4, group_size=32, activation_bits=8),
        _recipe("awq", bits=4, method="awq"),
        _recipe("awq-a8", bits=4, activation_bits=8, method="awq"),
    )
}

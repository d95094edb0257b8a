"""Recipes: which rule decides, and what is refused, in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingot import models, quant
from ingot.models import CheckpointError
from ingot.quant.recipe import from_dict

RULE = {"modules": ".*", "bits": 4}


def recipe(*rules: dict[str, Any]) -> quant.Recipe:
    return from_dict({"name": "mine", "rules": list(rules)}, "mine.json")


def test_the_first_rule_that_matches_the_whole_path_decides() -> None:
    mine = recipe(
        {"modules": "lm_head", "bits": 8},
        {"modules": r".*layers\.0\..*", "bits": None},
        {**RULE, "method": "awq"},
    )
    head, other = mine.rule("lm_head"), mine.rule("model.layers.1.mlp.down_proj")
    assert head is not None
    assert other is not None
    assert (head.bits, other.bits, other.method) == (8, 4, "awq")
    assert mine.rule("model.layers.0.mlp.down_proj") is None
    assert mine.needs_texts
    assert from_dict(json.loads(json.dumps(mine.to_dict())), "again") == mine


@pytest.mark.parametrize("name", quant.RECIPES)
def test_built_in_recipes_keep_embeddings_and_heads_at_8_bits(name: str) -> None:
    found = quant.find(name)
    for path in ("lm_head", "model.embed_tokens", "embeddings.word_embeddings"):
        rule = found.rule(path)
        assert rule is not None
        assert rule.bits == 8


def test_group_size_is_of_the_last_rule() -> None:
    sizes = [rule.group_size for rule in quant.find("awq", group_size=64).rules]
    assert sizes == [128, 64]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bits": 3}, "bits is 3; it is one of 4, 8, null"),
        ({"group_size": 100}, "group_size is 100; it is one of 32, 64, 128"),
        ({"activation_bits": 4}, "activation_bits is 4"),
        ({"method": "gptq"}, "method is 'gptq'; it is one of round, awq, smooth"),
        ({"modules": "("}, "is no regular expression"),
        ({"clip": True}, "a rule has modules and bits, and may have"),
    ],
)
def test_rules_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match="mine.json") as error:
        recipe({**RULE, **change})
    assert said in str(error.value)


@pytest.mark.parametrize("content", ["[]", "{", '{"name": "mine"}', '{"rules": []}', "\xff"])
def test_files_that_are_no_recipes(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match="mine.json"):
        quant.find(str(path))


def test_unknown_names() -> None:
    with pytest.raises(CheckpointError, match="no recipe 'int3'; name one of int8, "):
        quant.find("int3")
    with pytest.raises(CheckpointError, match="--group-size 16 is none of 32, 64, 128"):
        quant.find("int4", group_size=16)


def test_a_pattern_that_names_no_module(demo_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"modules 'model.head' names none"):
        quant.load(models.plan(demo_checkpoint), recipe({"modules": "model.head", "bits": 4}))
    with pytest.raises(CheckpointError, match="quantises no module"):
        quant.load(models.plan(demo_checkpoint), recipe({"modules": ".*", "bits": None}))

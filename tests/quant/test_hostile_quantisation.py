"""A quantization_config may hold anything: it is read, or refused in one sentence.

Every field of a config of each layout takes each value of tests/mutations.py, one at a time. What
is read says what the tensors must be, and these are read by it. So do the fields of a recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ingot.models import CheckpointError
from ingot.quant.importers import find
from ingot.quant.recipe import from_dict
from tests.mutations import mutated
from tests.quant import packers
from tests.quant.packers import INT8_BY_TOKEN, PATH, Case, make_case, scheme

CASE, INT8 = make_case(), make_case(bits=8, group_size=-1, symmetric=True)


def int8() -> dict[str, Any]:
    """With all that a group may have: patterns, and activations that are rounded."""
    group = {**scheme(INT8, (r"re:.*up_proj$",)), "input_activations": INT8_BY_TOKEN}
    config = packers.compressed_config(INT8, "int-quantized", config_groups={"group_0": group})
    return config | {"ignore": ["lm_head", r"re:.*\.0\.down_proj"]}


LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Tensor], Case]] = {
    "awq": (
        packers.awq_config(CASE, modules_to_not_convert=["down_proj"]),
        *(packers.awq(CASE), CASE),
    ),
    "gptq": (
        packers.gptq_config(CASE, meta={"quantizer": ["gptqmodel:1"]}, dynamic={"-:.*down": {}}),
        *(packers.gptq(CASE), CASE),
    ),
    "pack-quantized": (packers.compressed_config(CASE), packers.pack_quantized(CASE), CASE),
    "int-quantized": (int8(), packers.int_quantized(INT8), INT8),
}


def sentences(read: Any, mutants: Any) -> list[str]:
    """With which the mutants are refused."""
    found = []
    for mutant in mutants:
        try:
            read(mutant)
        except CheckpointError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_field_of_every_layout(layout: str, tmp_path: Path) -> None:
    config, tensors, case = LAYOUTS[layout]

    def read(values: Any) -> None:
        importer = find({"quantization_config": values}, tmp_path, tensors.keys())
        if importer is not None and importer.takes(PATH):
            importer.describe()
            importer.read(PATH, tensors, *case.shape)

    read(config)
    found = sentences(read, mutated(config))
    assert len(found) > len(config)
    assert [s for s in found if not s.startswith(str(tmp_path)) or len(s) > 500] == []
    assert [s for s in found if "\n" in s] == []


def test_every_field_of_a_recipe() -> None:
    rule = {"modules": ".*", "bits": 4, "group_size": 64, "symmetric": True}
    recipe = {"name": "mine", "rules": [rule | {"activation_bits": 8, "method": "awq"}]}
    from_dict(recipe, "mine.json")
    found = sentences(lambda v: from_dict(v, "mine.json").rule(PATH), mutated(recipe))
    assert len(found) > 60
    assert [s for s in found if "mine.json" not in s or len(s) > 400 or "\n" in s] == []


@pytest.mark.parametrize("pattern", ["(", "(" * 5000 + ")" * 5000, "a{99999999999}", 3, ["a"]])
def test_patterns_that_are_none(pattern: Any, tmp_path: Path) -> None:
    values = packers.compressed_config(CASE, ignore=[f"re:{pattern}"])
    if isinstance(pattern, str):
        with pytest.raises(CheckpointError, match="is no regular expression"):
            find({"quantization_config": values}, tmp_path, [])
    with pytest.raises(CheckpointError, match=r"mine.json: modules .* is no regular expression"):
        from_dict({"rules": [{"modules": pattern, "bits": 4}]}, "mine.json")

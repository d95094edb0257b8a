"""A config.json may hold anything: it is read, or refused in one sentence that names the file.

Every field of a config of each family takes each value of tests/mutations.py, one at a time. What
is read becomes a model on the meta device, so that a lie about sizes would show as memory, time or
a failure there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import transformers

from ingot import models
from tests.checkpoints import LLAMA3, SMALL, SMALL_ENCODER, SMALL_IMAGE, YARN, longrope
from tests.mutations import mutated

_GPT2 = {"n_embd": 96, "n_layer": 2, "n_head": 4, "n_inner": 100}
_PHI3 = {"rope_parameters": longrope(12), "original_max_position_embeddings": 64}

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", "LlamaForCausalLM", SMALL | {"rope_parameters": LLAMA3}),
    "yarn": ("LlamaConfig", "LlamaForCausalLM", SMALL | {"rope_parameters": YARN}),
    "Qwen2": ("Qwen2Config", "Qwen2ForCausalLM", SMALL | {"use_sliding_window": True}),
    "Qwen3": ("Qwen3Config", "Qwen3ForCausalLM", SMALL),
    "Gemma2": ("Gemma2Config", "Gemma2ForCausalLM", SMALL),
    "Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", SMALL),
    "Mistral": ("MistralConfig", "MistralForCausalLM", SMALL),
    "Olmo2": ("Olmo2Config", "Olmo2ForCausalLM", SMALL),
    "Phi3": ("Phi3Config", "Phi3ForCausalLM", SMALL | _PHI3 | {"pad_token_id": None}),
    "GPT2": ("GPT2Config", "GPT2LMHeadModel", _GPT2),
    "Bert": ("BertConfig", "BertModel", SMALL_ENCODER),
    "ViT": ("ViTConfig", "ViTForImageClassification", SMALL_ENCODER | SMALL_IMAGE),
    "DeiT": (
        *("DeiTConfig", "DeiTForImageClassificationWithTeacher"),
        SMALL_ENCODER | SMALL_IMAGE,
    ),
}


def config_json(kind: str) -> dict[str, Any]:
    settings, architecture, values = KINDS[kind]
    config = getattr(transformers, settings)(**values)
    return {**json.loads(config.to_json_string()), "architectures": [architecture]}


def sentence(read: Callable[[], object]) -> str | None:
    """How it was refused, if it was."""
    try:
        read()
    except models.CheckpointError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_every_kind(kind: str) -> None:
    values = config_json(kind)
    models.read_config(values, "config.json")
    built: set[Any] = set()
    sentences = []
    for mutant in mutated(values):
        try:
            config, family = models.read_config(mutant, "a/config.json")
        except models.CheckpointError as error:
            sentences.append(str(error))
            continue
        if config not in built:
            built.add(config)
            models.empty(config, model=family.model)
    assert len(sentences) > len(values)
    assert [s for s in sentences if not s.startswith("a/config.json: ") or len(s) > 400] == []
    assert [s for s in sentences if "\n" in s] == []


MODEL = {"architectures": ["LlamaForCausalLM"], **SMALL}
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "heads that do not divide": ({"num_attention_heads": 5, "head_dim": 24}, "5 attention heads c"),
    "more kv heads": ({"num_key_value_heads": 8}, "4 attention heads cannot share 8 key-value"),
    "more heads than sizes": ({"num_attention_heads": 200}, "head_dim is 0; it must be a positive"),
    "no heads": ({"num_attention_heads": 0}, "num_attention_heads is 0; it must be a positive int"),
    "fewer than none": ({"num_hidden_layers": -1}, "num_hidden_layers is -1; it must be a positiv"),
    "a billion layers": (
        {"num_hidden_layers": 10**7},
        "num_hidden_layers is 10000000; it must be a pos",
    ),
    "a huge size": ({"hidden_size": 10**12}, "hidden_size is 1000000000000; it must be a positive"),
    "a text": ({"vocab_size": "300"}, "vocab_size is '300'; it must be a positive integer"),
    "a fraction": ({"intermediate_size": 160.5}, "intermediate_size is 160.5; it must be a positi"),
    "a truth": ({"vocab_size": True}, "vocab_size is True; it must be a positive integer"),
    "wide heads": ({"head_dim": 512}, "head_dim is 512; heads of 256 at most work"),
    "NaN": ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan; it must be a number above zero"),
    "a negative epsilon": ({"rms_norm_eps": -1e-6}, "rms_norm_eps is -1e-06; it must be a number"),
    "a bias of words": ({"attention_bias": "no"}, "attention_bias is 'no'; it must be true or fal"),
    "a theta of one": ({"rope_theta": 1}, "rope_theta is 1.0; it must be above 1"),
    "rope of words": ({"rope_parameters": "yarn"}, "rope_parameters is 'yarn'; it must be an obje"),
    "odd rotation": ({"partial_rotary_factor": 0.625}, "of head_dim 24, 15 would rotate"),
    "rotation of more": ({"partial_rotary_factor": 2}, "of head_dim 24, 48 would rotate"),
    "waves": (
        {"rope_parameters": longrope(5)},
        "short_factor has 5 numbers for the 12 waves of a head",
    ),
    "no factor": ({"rope_scaling": {"type": "linear"}}, "field 'factor' is missing"),
    "no class": ({"architectures": []}, "architectures is []; it must be a list with the name"),
    "a list for a class": ({"architectures": [["Llama"]]}, "architectures is [['Llama']]; it must"),
}


@pytest.mark.parametrize(("lie", "refusal"), LIES.values(), ids=LIES)
def test_lies(lie: dict[str, Any], refusal: str) -> None:
    found = sentence(lambda: models.read_config(MODEL | lie, "config.json"))
    assert found is not None
    assert refusal in found


def test_layer_types_of_another_number_of_layers() -> None:
    mistral = MODEL | {"architectures": ["MistralForCausalLM"], "sliding_window": 8}
    for types in ([], ["full_attention"], ["sliding_attention"] * 3):
        found = sentence(lambda t=types: models.read_config(mistral | {"layer_types": t}, "c"))  # type: ignore[misc]
        assert found == f"c: layer_types is {types}; it must be a list of 2"

"""The configurations of published checkpoints load, with their parameter counts; no weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ingot import models
from tests.checkpoints import decoder_sizes


def olmo2(*numbers: int) -> dict[str, Any]:
    return {
        **decoder_sizes(*numbers, 100352),
        "max_position_embeddings": 4096,
        "rope_theta": 500000.0,
    }


def qwen2(*numbers: int, vocab: int = 151936, tied: bool = False) -> dict[str, Any]:
    return {**decoder_sizes(*numbers, vocab), "rope_theta": 1e6, "tie_word_embeddings": tied}


def qwen3(*numbers: int, tied: bool = False) -> dict[str, Any]:
    return {**qwen2(*numbers, tied=tied), "head_dim": 128}


# Published counts beside those that are known to the last digit.
MODELS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "OLMo-2-0425-1B": ("Olmo2", olmo2(2048, 8192, 16, 16, 16), 1_484_916_736),
    "OLMo-2-1124-7B": ("Olmo2", olmo2(4096, 11008, 32, 32, 32), None),
    "OLMo-2-1124-13B": ("Olmo2", olmo2(5120, 13824, 40, 40, 40), None),
    "OLMo-2-0325-32B": ("Olmo2", olmo2(5120, 27648, 64, 40, 8), None),
    "Llama-3-8B": ("Llama", decoder_sizes(4096, 14336, 32, 32, 8, 128256), 8_030_261_248),
    "TinyLlama-1.1B": ("Llama", decoder_sizes(2048, 5632, 22, 32, 4, 32000), 1_100_048_384),
    "Mistral-7B-v0.1": (
        "Mistral",
        {**decoder_sizes(4096, 14336, 32, 32, 8, 32000), "sliding_window": 4096},
        7_241_732_096,
    ),
    "Qwen2.5-0.5B": ("Qwen2", qwen2(896, 4864, 24, 14, 2, tied=True), 494_032_768),
    "Qwen2.5-1.5B": ("Qwen2", qwen2(1536, 8960, 28, 12, 2, tied=True), 1_543_714_304),
    "Qwen2.5-7B": ("Qwen2", qwen2(3584, 18944, 28, 28, 4, vocab=152064), 7_615_616_512),
    "Qwen2.5-32B": ("Qwen2", qwen2(5120, 27648, 64, 40, 8, vocab=152064), None),
    "Qwen3-0.6B": ("Qwen3", qwen3(1024, 3072, 28, 16, 8, tied=True), None),
    "Qwen3-8B": ("Qwen3", qwen3(4096, 12288, 36, 32, 8), 8_190_735_360),
    "Qwen3-32B": ("Qwen3", qwen3(5120, 25600, 64, 64, 8), None),
}


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count(name: str) -> None:
    kind, fields, published = MODELS[name]
    architecture = f"{kind}ForCausalLM"
    config, _ = models.read_config({"architectures": [architecture], **fields}, name)
    ours = models.empty(config, dtype="bfloat16").parameter_count
    with torch.device("meta"):
        settings = getattr(transformers, f"{kind}Config")(**fields, pad_token_id=None)
        theirs = getattr(transformers, architecture)(settings)
    assert ours == sum(parameter.numel() for parameter in theirs.parameters())
    assert published in (None, ours)

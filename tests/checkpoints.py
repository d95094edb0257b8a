"""Random checkpoints in the Hugging Face layout, written by `transformers` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SMALL = {
    "vocab_size": 300,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}

# One of each thing that a Llama checkpoint may vary in.
LLAMAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "odd-heads-mqa-40": {
        "hidden_size": 120,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 40,
    },
    "mha-80-biased-llama3": {
        "hidden_size": 400,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "head_dim": 80,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": LLAMA3,
    },
    "gqa-128-tied-linear": {
        "num_key_value_heads": 3,
        "num_attention_heads": 6,
        "head_dim": 128,
        "tie_word_embeddings": True,
        "rope_parameters": LINEAR,
    },
    "sharded-odd-sizes": {
        "vocab_size": 131,
        "hidden_size": 66,
        "intermediate_size": 101,
        "head_dim": 22,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "max_shard_size": "40KB",
    },
}


def make_llama(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A Llama checkpoint of random weights, wide enough apart that greedy decoding varies."""
    shard = config.pop("max_shard_size", "1GB")
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**SMALL, **config}))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or name.endswith("bias"):
            torch.nn.init.normal_(parameter, 0, 0.15)
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


def reference(folder: Path) -> LlamaForCausalLM:
    """The same checkpoint in transformers, float32."""
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def reference_tokens(model: LlamaForCausalLM, prompt: list[int], count: int) -> list[int]:
    """Greedy continuation by transformers; stop ids do not stop."""
    model.generation_config.eos_token_id = None
    out = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False)
    return out[0, len(prompt) :].tolist()


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())

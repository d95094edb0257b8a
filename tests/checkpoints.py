"""Random checkpoints in the Hugging Face layout, written by `transformers` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

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

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 64,
}


def longrope(pairs: int) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0 + 0.1 * i for i in range(pairs)],
        "long_factor": [2.0 + 0.7 * i for i in range(pairs)],
        "original_max_position_embeddings": 64,
    }


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


def decoder_sizes(
    hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int
) -> dict[str, Any]:
    """A decoder's sizes as config.json names them."""
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
    }


def make_checkpoint(folder: Path, kind: str = "Llama", seed: int = 0, **config: Any) -> Path:
    """A checkpoint of random weights, wide enough apart that greedy decoding varies.

    kind: what transformers' classes are named after, as in LlamaConfig and LlamaForCausalLM.
    """
    shard = config.pop("max_shard_size", "1GB")
    torch.manual_seed(seed)
    head = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    settings = {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config")
    common = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    common |= {} if kind == "GPT2" else SMALL
    model = getattr(transformers, head)(getattr(transformers, settings)(**{**common, **config}))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or name.endswith("bias"):
            torch.nn.init.normal_(parameter, 0, 0.15)
        else:  # norms
            torch.nn.init.normal_(parameter, float(parameter.data.mean()), 0.1)
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


SMALL_ENCODER = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SMALL_IMAGE = {"image_size": 32, "patch_size": 8}
ENCODERS = ("BertModel", "ViTForImageClassification")


def make_encoder(folder: Path, architecture: str, seed: int = 0, **config: Any) -> Path:
    """A random checkpoint of an encoder: BertModel, or an image classifier."""
    torch.manual_seed(seed)
    cls = getattr(transformers, architecture)
    common = SMALL_ENCODER if architecture == "BertModel" else SMALL_ENCODER | SMALL_IMAGE
    model = cls(cls.config_class(**{**common, **config}))
    for name, parameter in model.named_parameters():
        norm = "norm" in name.lower() and name.endswith("weight")
        torch.nn.init.normal_(parameter, float(norm), 0.1)
    model.save_pretrained(folder)
    return folder


def make_llama(folder: Path, seed: int = 0, **config: Any) -> Path:
    return make_checkpoint(folder, "Llama", seed, **config)


def reference(folder: Path) -> Any:
    """The same checkpoint in transformers, float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def reference_tokens(model: Any, prompt: list[int], count: int) -> list[int]:
    """Greedy continuation by transformers; stop ids do not stop."""
    model.generation_config.eos_token_id = None
    out = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False)
    return out[0, len(prompt) :].tolist()


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())

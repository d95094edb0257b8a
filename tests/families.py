"""Three random configurations of each family: tied and untied, odd sizes, short windows."""

from __future__ import annotations

from typing import Any

from tests.checkpoints import LINEAR, YARN, longrope

_ODD = {"vocab_size": 131, "hidden_size": 66, "intermediate_size": 101}
_ODD_HEADS = {**_ODD, "head_dim": 22, "num_attention_heads": 3, "num_key_value_heads": 3}
_MQA = {"head_dim": 40, "num_attention_heads": 3, "num_key_value_heads": 1}
_TIED = {"tie_word_embeddings": True}
_SLIDES = {"sliding_window": 12, "use_sliding_window": True, "num_hidden_layers": 3}
_GPT2 = {"vocab_size": 300, "n_positions": 512, "n_embd": 96, "n_layer": 2, "n_head": 4}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral-window": ("Mistral", {"sliding_window": 9}),
    "mistral-full-mqa": ("Mistral", {"sliding_window": None, **_MQA, **_TIED}),
    "mistral-yarn-odd": ("Mistral", {"sliding_window": 100, **_ODD_HEADS, "rope_parameters": YARN}),
    "qwen2-tied": ("Qwen2", _TIED),
    "qwen2-slides": ("Qwen2", {**_SLIDES, "max_window_layers": 1}),
    "qwen2-odd-yarn": (
        "Qwen2",
        {**_ODD, "num_attention_heads": 3, "num_key_value_heads": 1, "rope_parameters": YARN},
    ),
    "qwen3-dim48": ("Qwen3", {"head_dim": 48}),
    "qwen3-tied-mqa-biased": ("Qwen3", {**_TIED, **_MQA, "attention_bias": True}),
    "qwen3-slides-odd": ("Qwen3", {**_SLIDES, **_ODD_HEADS, "max_window_layers": 2}),
    "olmo2": ("Olmo2", {}),
    "olmo2-mha-biased": ("Olmo2", {"num_key_value_heads": 4, "attention_bias": True}),
    "olmo2-odd-tied": (
        "Olmo2",
        {**_ODD, **_TIED, "num_attention_heads": 3, "num_key_value_heads": 1},
    ),
    "gemma2-windows": (
        "Gemma2",
        {"head_dim": 32, "sliding_window": 11, "query_pre_attn_scalar": 20},
    ),
    "gemma2-low-caps-untied": (
        "Gemma2",
        {
            "head_dim": 256,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "tie_word_embeddings": False,
            "num_hidden_layers": 3,
        },
    ),
    "gemma2-odd": ("Gemma2", {**_ODD_HEADS, "attn_logit_softcapping": None, "sliding_window": 64}),
    "gemma3-pattern": (
        "Gemma3",
        {"head_dim": 32, "sliding_window": 10, "sliding_window_pattern": 2},
    ),
    "gemma3-scaled": (
        "Gemma3",
        {
            **_MQA,
            "sliding_window": 17,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {**LINEAR, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
    "gemma3-odd-untied": ("Gemma3", {**_ODD_HEADS, "tie_word_embeddings": False}),
    "phi3-window": ("Phi3", {"sliding_window": 14}),
    "phi3-longrope": ("Phi3", {"rope_parameters": longrope(12)}),
    "phi3-partial-tied": (
        "Phi3",
        {
            **_TIED,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.75,
            },
        },
    ),
    "gpt2": ("GPT2", _GPT2),
    "gpt2-untied-wide": ("GPT2", {**_GPT2, "tie_word_embeddings": False, "n_inner": 250}),
    "gpt2-odd-gelu": (
        "GPT2",
        {**_GPT2, "n_embd": 66, "n_head": 3, "vocab_size": 131, "activation_function": "gelu"},
    ),
}

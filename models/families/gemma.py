"""Gemma 2 (arXiv:2408.00118) and Gemma 3, text (arXiv:2503.19786)."""

from __future__ import annotations

from typing import Any

from ..config import Config, Rope
from .family import (
    Family,
    Fields,
    make_rope,
    read_activation,
    read_decoder,
    read_windows,
)


def _read(fields: Fields, **changes: Any) -> Config:
    fields.get("hidden_act")  # old files state both; this one is not used
    bias = bool(fields.get("attention_bias"))
    return read_decoder(
        fields,
        norm="rms_plus_one",
        norms="around",
        activation=read_activation(fields, "hidden_activation", "gelu_pytorch_tanh"),
        head_dim=fields.get("head_dim", 256),
        embedding_scale=fields["hidden_size"] ** 0.5,
        attention_scale=fields.get("query_pre_attn_scalar", 256) ** -0.5,
        attention_softcap=fields.get("attn_logit_softcapping"),
        logit_softcap=fields.get("final_logit_softcapping"),
        qkv_bias=bias,
        output_bias=bias,
        tied_head=bool(fields.get("tie_word_embeddings", True)),
        **changes,
    )


def read_gemma2(fields: Fields) -> Config:
    window = fields.get("sliding_window", 4096)
    return _read(fields, windows=read_windows(fields, window, lambda layer: layer % 2 == 0))


def read_gemma3(fields: Fields) -> Config:
    window = fields.get("sliding_window", 4096)
    pattern = fields.get("sliding_window_pattern", fields.get("_sliding_window_pattern", 6))
    fields.get("_sliding_window_pattern")
    rope, local = _ropes(fields)
    return _read(
        fields,
        windows=read_windows(fields, window, lambda layer: (layer + 1) % pattern != 0),
        query_key_norm="head",
        rope=rope,
        local_rope=local,
    )


def _ropes(fields: Fields) -> tuple[Rope, Rope]:
    """Of the layers that see all, and of those with a window."""
    new = fields.get("rope_parameters", {})
    local_theta = fields.get("rope_local_base_freq", 10000.0)
    length = fields.get("max_position_embeddings", 131072)
    if "full_attention" in new or "sliding_attention" in new:
        full = {"rope_theta": 1e6, **(new.get("full_attention") or {})}
        local = {"rope_theta": local_theta, **(new.get("sliding_attention") or {})}
        return make_rope(full, length), make_rope(local, length)
    theta, scaling = fields.get("rope_theta", 1e6), fields.get("rope_scaling", {})
    full = {"rope_theta": theta, **scaling, **new}
    return make_rope(full, length), make_rope({"rope_theta": local_theta}, length)


FAMILIES = {"Gemma2ForCausalLM": Family(read_gemma2), "Gemma3ForCausalLM": Family(read_gemma3)}

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
    read_window,
    read_windows,
)


def _read(fields: Fields, **changes: Any) -> Config:
    fields.get("hidden_act")  # old files state both; this one is not used
    bias = fields.flag("attention_bias")
    return read_decoder(
        fields,
        norm="rms_plus_one",
        norms="around",
        activation=read_activation(fields, "hidden_activation", "gelu_pytorch_tanh"),
        head_dim=fields.size("head_dim", 256),
        embedding_scale=fields.size("hidden_size") ** 0.5,
        attention_scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
        attention_softcap=_cap(fields, "attn_logit_softcapping"),
        logit_softcap=_cap(fields, "final_logit_softcapping"),
        qkv_bias=bias,
        output_bias=bias,
        tied_head=fields.flag("tie_word_embeddings", True),
        **changes,
    )


def read_gemma2(fields: Fields) -> Config:
    window = read_window(fields, 4096)
    return _read(fields, windows=read_windows(fields, window, lambda layer: layer % 2 == 0))


def read_gemma3(fields: Fields) -> Config:
    window = read_window(fields, 4096)
    pattern = fields.size("_sliding_window_pattern", 6)
    pattern = fields.size("sliding_window_pattern", pattern)
    rope, local = _ropes(fields)
    return _read(
        fields,
        windows=read_windows(fields, window, lambda layer: (layer + 1) % pattern != 0),
        query_key_norm="head",
        rope=rope,
        local_rope=local,
    )


def _cap(fields: Fields, name: str) -> float | None:
    return None if fields.get(name) is None else fields.number(name)


def _ropes(fields: Fields) -> tuple[Rope, Rope]:
    """Of the layers that see all, and of those with a window."""
    new, old = fields.section("rope_parameters"), fields.section("rope_scaling")
    theta, local_theta = (
        fields.number("rope_theta", 1e6),
        fields.number("rope_local_base_freq", 1e4),
    )
    length = fields.size("max_position_embeddings", 131072)
    if "full_attention" in new or "sliding_attention" in new:
        kinds = Fields(new)
        full, local = kinds.section("full_attention"), kinds.section("sliding_attention")
        return make_rope(full, length, 1e6), make_rope(local, length, local_theta)
    return make_rope(old | new, length, theta), make_rope({}, length, local_theta)


FAMILIES = {"Gemma2ForCausalLM": Family(read_gemma2), "Gemma3ForCausalLM": Family(read_gemma3)}

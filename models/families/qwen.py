"""Qwen 2 and 2.5 (Yang et al., arXiv:2407.10671) and Qwen 3 (arXiv:2505.09388), dense."""

from __future__ import annotations

from ..config import Config
from .family import Family, Fields, read_decoder, read_window, read_windows


def _windows(fields: Fields) -> tuple[int | None, ...]:
    """The layers from max_window_layers on slide, if sliding is on at all."""
    first, slides = fields.get("max_window_layers", 28), fields.flag("use_sliding_window")
    window = read_window(fields)
    return read_windows(fields, window if slides else None, lambda layer: layer >= first)


def read_qwen2(fields: Fields) -> Config:
    return read_decoder(fields, qkv_bias=True, windows=_windows(fields))


def read_qwen3(fields: Fields) -> Config:
    bias = fields.flag("attention_bias")
    return read_decoder(
        fields,
        qkv_bias=bias,
        output_bias=bias,
        windows=_windows(fields),
        query_key_norm="head",
        head_dim=fields.size("head_dim", 128),
    )


FAMILIES = {"Qwen2ForCausalLM": Family(read_qwen2), "Qwen3ForCausalLM": Family(read_qwen3)}

"""Llama 1, 2, 3 (Touvron et al. 2023; Llama team 2024) and Mistral (Jiang et al. 2023)."""

from __future__ import annotations

from ..config import Config
from .family import Family, Fields, read_decoder, read_window, read_windows


def read_llama(fields: Fields) -> Config:
    bias = fields.flag("attention_bias")
    mlp_bias = fields.flag("mlp_bias")
    return read_decoder(fields, qkv_bias=bias, output_bias=bias, mlp_bias=mlp_bias)


def read_mistral(fields: Fields) -> Config:
    windows = read_windows(fields, read_window(fields), lambda layer: True)
    return read_decoder(fields, windows=windows)


FAMILIES = {"LlamaForCausalLM": Family(read_llama), "MistralForCausalLM": Family(read_mistral)}

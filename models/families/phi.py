"""Phi-3 and Phi-4-mini (arXiv:2404.14219): fused projections, longrope, partial rotation."""

from __future__ import annotations

from ..config import Config
from .family import Family, Fields, read_decoder, read_window, read_windows


def read_phi3(fields: Fields) -> Config:
    bias = fields.flag("attention_bias")
    return read_decoder(
        fields,
        norm_eps=fields.number("rms_norm_eps", 1e-5),
        windows=read_windows(fields, read_window(fields), lambda layer: True),
        qkv_bias=bias,
        output_bias=bias,
        fused_projections=True,
    )


FAMILIES = {"Phi3ForCausalLM": Family(read_phi3)}

"""OLMo 2 (arXiv:2501.00656): norms after attention and MLP, query and key norms over all heads."""

from __future__ import annotations

from ..config import Config
from .family import Family, Fields, read_decoder


def read_olmo2(fields: Fields) -> Config:
    bias = fields.flag("attention_bias")
    return read_decoder(
        fields,
        qkv_bias=bias,
        output_bias=bias,
        norms="after",
        query_key_norm="full",
        norm_eps=fields.number("rms_norm_eps", 1e-5),
    )


FAMILIES = {"Olmo2ForCausalLM": Family(read_olmo2)}

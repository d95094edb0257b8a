"""BERT (Devlin et al. 2019) and the sentence encoders built on it, MiniLM among them."""

from __future__ import annotations

from ..config import TextEncoderConfig
from ..encoder import TextEncoder
from .family import Family, Fields, read_activation

_INERT = "classifier_dropout gradient_checkpointing tie_word_embeddings add_cross_attention"


def read_bert(fields: Fields) -> TextEncoderConfig:
    for name in _INERT.split():
        fields.get(name)
    if fields.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError("position_embedding_type other than absolute is not supported")
    return TextEncoderConfig(
        architecture=fields["architectures"][0],
        vocab_size=fields.size("vocab_size"),
        hidden_size=fields.size("hidden_size"),
        intermediate_size=fields.size("intermediate_size"),
        num_layers=fields.layers("num_hidden_layers"),
        num_heads=fields.size("num_attention_heads"),
        max_seq_len=fields.size("max_position_embeddings", 512),
        type_vocab_size=fields.size("type_vocab_size", 2),
        norm_eps=fields.number("layer_norm_eps", 1e-12),
        norms="after",
        activation=read_activation(fields, default="gelu"),
        qkv_bias=True,
    )


_NAMES = (
    ("^embeddings.", "bert.embeddings."),
    ("embeddings.norm", "embeddings.LayerNorm"),
    ("^layers.", "bert.encoder.layer."),
    ("attention.query", "attention.self.query"),
    ("attention.key", "attention.self.key"),
    ("attention.value", "attention.self.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("attention_norm", "attention.output.LayerNorm"),
    ("mlp.up_proj", "intermediate.dense"),
    ("mlp.down_proj", "output.dense"),
    ("mlp_norm", "output.LayerNorm"),
)
# The pooler and the heads of other tasks are not part of an encoder.
_UNUSED = (".position_ids", "pooler.dense.weight", "pooler.dense.bias")
_BERT = Family(read_bert, _NAMES, prefix="bert.", computed=_UNUSED, model=TextEncoder)
FAMILIES = {"BertModel": _BERT}

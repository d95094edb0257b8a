"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, weights stored [in, out]."""

from __future__ import annotations

from ..config import Config
from .family import Family, Fields, read_activation

# Says nothing about a causal language model's arithmetic: heads of other tasks, and old names.
_INERT = "n_ctx summary_type summary_use_proj summary_activation summary_proj_to_labels"
_INERT += " summary_first_dropout task_specific_params gradient_checkpointing"


def read_gpt2(fields: Fields) -> Config:
    for name in _INERT.split():
        fields.get(name)
    if not fields.flag("scale_attn_weights", True):
        raise ValueError("scale_attn_weights false is not supported")
    hidden, heads = fields.size("n_embd"), fields.size("n_head")
    positions = fields.size("n_positions", 1024)
    return Config(
        architecture=fields["architectures"][0],
        vocab_size=fields.size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.size("n_inner", 4 * hidden),
        num_layers=fields.layers("n_layer"),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        max_seq_len=positions,
        learned_positions=positions,
        rope=None,
        norm="layer",
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        activation=read_activation(fields, "activation_function", "gelu_new"),
        gated_mlp=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        tied_head=fields.flag("tie_word_embeddings", True),
        fused_projections=True,
        transposed=True,
    )


_NAMES = (
    ("model.layers.", "transformer.h."),
    ("model.embed_tokens", "transformer.wte"),
    ("model.embed_positions", "transformer.wpe"),
    ("model.norm", "transformer.ln_f"),
    ("input_layernorm", "ln_1"),
    ("post_attention_layernorm", "ln_2"),
    ("self_attn.qkv_proj", "attn.c_attn"),
    ("self_attn.o_proj", "attn.c_proj"),
    ("mlp.up_proj", "mlp.c_fc"),
    ("mlp.down_proj", "mlp.c_proj"),
)
_MASKS = (".attn.bias", ".attn.masked_bias")  # buffers of old checkpoints
FAMILIES = {"GPT2LMHeadModel": Family(read_gpt2, _NAMES, prefix="transformer.", computed=_MASKS)}

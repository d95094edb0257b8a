"""make_model.py's checkpoint to GGUF in bfloat16, vectors in float32.

    python to_gguf.py FOLDER FILE

llama.cpp's own converter knows tokenizers by their hashes, and ours is none of those. Names and
keys are those of the GGUF specification (ggml, docs/gguf.md) for the architecture "llama".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file

TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def name_of(name: str) -> str:
    if name in TOP:
        return TOP[name]
    _, _, layer, rest = name.split(".", 3)  # model.layers.0.self_attn.q_proj.weight
    return f"blk.{layer}.{LAYER[rest.removesuffix('.weight')]}.weight"


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """GGUF's llama rotates neighbours, Hugging Face halves of a head: reorder each head's rows."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def add_config(writer: gguf.GGUFWriter, config: dict) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict) -> None:
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    words = {index: word for word, index in tokenizer["model"]["vocab"].items()} | special
    kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in words]
    order = sorted(range(len(words)), key=list(words).__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([list(words.values())[i] for i in order])
    writer.add_token_types([kinds[i] for i in order])
    writer.add_token_merges(
        [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    )


def add_tensor(writer: gguf.GGUFWriter, name: str, tensor: torch.Tensor) -> None:
    if tensor.ndim == 1:
        writer.add_tensor(name, tensor.float().numpy())
        return
    data = tensor.contiguous().view(torch.uint8).numpy()  # numpy has no bfloat16
    writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.BF16)


def main(folder: Path, output: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(output), "llama")
    add_config(writer, config)
    add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text()))
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in load_file(folder / "model.safetensors").items():
        module = name.split(".")[-2]
        if module in heads:
            tensor = interleave(tensor, heads[module])
        add_tensor(writer, name_of(name), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

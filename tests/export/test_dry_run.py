"""Parameters and arithmetic of published models, from config.json alone, against hand counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ingot.export.subject import of_checkpoint
from ingot.models import CheckpointError
from ingot.profiling.analysis import Subject, analyze, phases, request_of
from ingot.profiling.calls import cost
from ingot.profiling.roofline import read_hardware
from tests.checkpoints import decoder_sizes


def subject(folder: Path, config: dict[str, Any], **options: Any) -> Subject:
    (folder / "config.json").write_text(json.dumps(config))
    return of_checkpoint(folder, **options)


def flops(found: Subject, **request: Any) -> dict[str, Sequence[float]]:
    """Of each step's ops, by phase: what the hand counts are of."""
    asked = request_of(found, **request)
    return {
        phase: [
            sum(cost(call, sizes).flops for call in found.calls(sizes) if call.kind == "op")
            for sizes in steps
        ]
        for phase, steps in phases(found.kind, asked).items()
    }


def decoder(*numbers: int) -> dict[str, Any]:
    return {**decoder_sizes(*numbers), "max_position_embeddings": 4096}


# Their config.json (https://huggingface.co/<name>/blob/main/config.json), and the published count.
DECODERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "meta-llama/Llama-2-7b-hf": ("Llama", decoder(4096, 11008, 32, 32, 32, 32000), 6_738_415_616),
    "meta-llama/Meta-Llama-3-8B": ("Llama", decoder(4096, 14336, 32, 32, 8, 128256), 8_030_261_248),
    "allenai/OLMo-2-1124-7B": ("Olmo2", decoder(4096, 11008, 32, 32, 32, 100352), 7_298_617_344),
    "allenai/OLMo-2-1124-13B": ("Olmo2", decoder(5120, 13824, 40, 40, 40, 100352), 13_716_198_400),
    "allenai/OLMo-2-0325-32B": ("Olmo2", decoder(5120, 27648, 64, 40, 8, 100352), 32_234_279_936),
}


@pytest.mark.parametrize("name", DECODERS)
def test_decoders(name: str, tmp_path: Path) -> None:
    family, config, published = DECODERS[name]
    found = subject(
        tmp_path, {"architectures": [f"{family}ForCausalLM"], **config}, dtype="bfloat16"
    )
    hidden, inner, layers, heads, kv, vocab = list(config.values())[:6]
    narrow = hidden // heads * kv
    matrices = layers * (2 * hidden * hidden + 2 * hidden * narrow + 3 * hidden * inner)
    norms = layers * 2 * hidden + hidden
    if family == "Olmo2":  # of queries and keys, too
        norms += layers * (hidden + narrow)
    assert found.model["parameters"] == 2 * vocab * hidden + matrices + norms == published

    # A token: each weight but the embedding's is multiplied and added once, and each query head's
    # elements twice for every token seen (kipply, "flops counting").
    def token(seen: int) -> float:
        return 2 * (matrices + vocab * hidden) + 4 * layers * hidden * seen

    counted = flops(found, prompt=300, context=1000, step_tokens=256)
    assert counted["decode"] == [token(1000)]
    rows = 2 * vocab * hidden  # a step makes logits of one row
    first, second = (256 * matrices * 2 + rows, 44 * matrices * 2 + rows)
    assert counted["prefill"] == [
        first + 4 * layers * hidden * (256 * 257 / 2),
        second + 4 * layers * hidden * (300 * 301 / 2 - 256 * 257 / 2),
    ]

    # 2 bytes a weight, norms 4; K and V of every layer, 2 bytes an element.
    result = analyze(found, request_of(found, prompt=300, context=1000), read_hardware("h100"))
    floats = 2 * norms + 4 * (hidden // heads // 2)  # the norms' and the rotation's other halves
    assert result["memory"]["weight_bytes"] == 2 * published + floats
    assert result["memory"]["kv_bytes"] == 1008 * layers * 2 * narrow * 2
    of_weights = result["phases"]["decode"]["read_bytes"] / (2 * (published - vocab * hidden))
    assert 1 < of_weights < 1.1  # beside them the cache and activations


def test_vit_base(tmp_path: Path) -> None:
    """google/vit-base-patch16-224: 86,567,656 parameters; 17.56 G multiply-adds an image (table of
    torchvision's vit_b_16)."""
    hidden, inner, layers, labels, patches = 768, 3072, 12, 1000, 14 * 14
    config = {
        "architectures": ["ViTForImageClassification"],
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "id2label": {str(i): str(i) for i in range(labels)},
    }
    found = subject(tmp_path, config)
    tokens = patches + 1
    embeddings = hidden * (3 * 16 * 16) + hidden + hidden + tokens * hidden
    block = 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    head = 2 * hidden + labels * hidden + labels
    assert found.model["parameters"] == embeddings + layers * block + head == 86_567_656

    products = patches * 768 * hidden + layers * tokens * (4 * hidden**2 + 2 * hidden * inner)
    attention = layers * 2 * tokens**2 * hidden
    made = products + attention + hidden * labels
    assert made == pytest.approx(17.564e9, rel=1e-4)
    # Of the last block only the class token is read: behind its attention the patches are left out.
    made -= patches * (hidden**2 + 2 * hidden * inner)
    assert flops(found) == {"forward": [2 * made]}
    assert flops(found, batch=4) == {"forward": [4 * 2 * made]}


def test_minilm(tmp_path: Path) -> None:
    """sentence-transformers/all-MiniLM-L6-v2: 22,713,216 parameters, of which the pooler's, that no
    sentence embedding uses, are not loaded."""
    hidden, inner, layers, vocab, positions = 384, 1536, 6, 30522, 512
    config = {
        "architectures": ["BertModel"],
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "vocab_size": vocab,
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
    }
    found = subject(tmp_path, config)
    embeddings = (vocab + positions + 2) * hidden + 2 * hidden
    block = 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    pooler = hidden * hidden + hidden
    assert found.model["parameters"] == embeddings + layers * block == 22_713_216 - pooler

    matrices = layers * (4 * hidden**2 + 2 * hidden * inner)
    text = 128 * 2 * matrices + 4 * layers * hidden * 128**2
    assert flops(found, prompt=128) == {"forward": [text]}
    assert flops(found, batch=3, prompt=128) == {"forward": [3 * text]}


def test_quantised(tmp_path: Path) -> None:
    """Of 4 bits a weight takes 0.5625 bytes in groups of 32: a float16 scale for 32 codes."""
    config = {"architectures": ["LlamaForCausalLM"], **decoder(1024, 2816, 4, 16, 4, 32000)}
    found = subject(tmp_path, config, dtype="bfloat16", recipe="int4-a8")
    plain = subject(tmp_path, config, dtype="bfloat16")
    assert found.activation_bits == 8
    path = "model.layers.0.mlp.gate_up_proj"
    assert found.module_bytes[path] == 2 * 2816 * 1024 * 4.375 / 8
    assert found.module_bytes["lm_head"] == 32000 * 1024 * (1 + 2 / 128)
    assert flops(found)["decode"][0] - flops(plain)["decode"][0] == 2 * 1024  # the embedding's row
    (call,) = (call for call in found.calls(sizes_of_decode(found)) if call.module == path)
    assert found.kernel(call) == "linear_w4_activated.g128.a8"


def test_a_tied_head_is_there_once(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], **decoder(64, 128, 2, 4, 4, 1000)}
    apart = subject(tmp_path, config)
    tied = subject(tmp_path, {**config, "tie_word_embeddings": True})
    assert apart.weight_bytes - tied.weight_bytes == 1000 * 64 * 4  # the embedding, by rows
    assert flops(apart) == flops(tied)
    assert flops(tied, batch=3)["decode"] == [3 * made for made in flops(tied)["decode"]]
    assert tied.module_bytes["lm_head"] == tied.module_bytes["model.embed_tokens"]


def test_windows_read_less(tmp_path: Path) -> None:
    """Gemma 3: five layers of six see 512 tokens, and a decode step reads no others of them."""
    fields = decoder(64, 128, 6, 4, 2, 1000)
    config = {
        "architectures": ["Gemma3ForCausalLM"],
        **fields,
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 512,
        "query_pre_attn_scalar": 16,
    }
    found = subject(tmp_path, config)
    (sizes,) = phases("decoder", request_of(found, context=2000))["decode"]
    attention = [cost(call, sizes).flops for call in found.calls(sizes) if "attention" in call.name]
    assert attention == [4 * 512 * 64] * 5 + [4 * 2000 * 64]


def sizes_of_decode(found: Subject) -> Any:
    return phases("decoder", request_of(found))["decode"][0]


def test_temporaries_grow_with_the_step(tmp_path: Path) -> None:
    """The largest are an MLP's: what is gated, x and the stream."""
    config = {"architectures": ["LlamaForCausalLM"], **decoder(256, 1024, 4, 4, 4, 1000)}
    found = subject(tmp_path, config)
    step = phases("decoder", request_of(found, prompt=256))["prefill"][0]
    least = 256 * (1024 + 256 + 256) * 4
    assert least <= found.temporary_bytes(step) < 1.2 * least


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="config.json is missing"):
        of_checkpoint(tmp_path)
    config = {"architectures": ["LlamaForCausalLM"], **decoder(64, 128, 2, 4, 4, 1000)}
    with pytest.raises(CheckpointError, match="quantised already"):
        subject(tmp_path, {**config, "quantization_config": {"quant_method": "awq"}})
    with pytest.raises(CheckpointError, match="no recipe 'int3'"):
        subject(tmp_path, config, recipe="int3")
    with pytest.raises(CheckpointError, match="give --quant too"):
        subject(tmp_path, config, group_size=32)

"""A checkpoint of random weights, bfloat16, at the shape of TinyLlama-1.1B, with a tokenizer.

    python make_model.py FOLDER

Nothing is downloaded: the tokenizer, byte-level BPE, is trained on the Python standard library.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CONFIG = transformers.LlamaConfig(
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=22,
    num_attention_heads=32,
    num_key_value_heads=4,
    vocab_size=32000,
    max_position_embeddings=2048,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    dtype=torch.bfloat16,
)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    library = Path(sysconfig.get_path("stdlib"))
    files = [*sorted(library.glob("*.py")), *sorted(library.glob("*/*.py"))[:400]]
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG.vocab_size,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train([str(file) for file in files], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


def model() -> torch.nn.Module:
    """Matrices as the config initialises them; norms near 1, so that none can be left out."""
    network = transformers.LlamaForCausalLM(CONFIG)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.1 * noise if weight.ndim == 1 else 0.02 * noise)
    return network.to(torch.bfloat16)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)

"""Train the demo checkpoint: a small Llama that writes Python, from the standard library's sources.

    python scripts/train_demo.py --out demo/checkpoint --minutes 90

What it does, in order: collects the `.py` files of the running interpreter's standard library
(tests left out), sets the held-out files of `HELD_OUT` aside, trains a byte-level BPE tokenizer,
trains a `LlamaForCausalLM` with Muon for the matrices (Jordan et al. 2024) and AdamW for the rest
until the time budget is spent, and writes a bf16 checkpoint in the Hugging Face layout with its
model card.

The learning rate follows the clock, not a step count: warm-up, then a linear decay to zero over the
last 60 % of the budget (Hägele et al. 2024). An interrupted run therefore leaves no checkpoint;
start it again.
"""

from __future__ import annotations

import json
import math
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from heldout import HELD_OUT, corpus
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS = "<s>", "</s>"


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on but the sources and the machine."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 1024
    sequence: int = 256
    batch: int = 16
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    seed: int = 0


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE: any text has tokens, none is unknown (Radford et al. 2019, section 2.2)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bos_id = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos_id)]
    )
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """All files in one stream, int64 [tokens]: each begins with BOS and ends with EOS."""
    eos = tokenizer.token_to_id(EOS)
    ids = [np.array([*e.ids, eos], dtype=np.int64) for e in tokenizer.encode_batch(texts)]
    return torch.from_numpy(np.concatenate(ids))


def build_model(recipe: Recipe, tokenizer: Tokenizer) -> LlamaForCausalLM:
    torch.manual_seed(recipe.seed)
    sizes = {k: v for k, v in asdict(recipe).items() if k in LlamaConfig().to_dict()}
    return LlamaForCausalLM(
        LlamaConfig(
            **sizes,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.token_to_id(BOS),
            eos_token_id=tokenizer.token_to_id(EOS),
            attn_implementation="sdpa",
        )
    )


def batch_of(stream: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Random windows of the stream, int64 [batch, sequence + 1]."""
    starts = torch.randint(len(stream) - recipe.sequence - 1, (recipe.batch,), generator=generator)
    return torch.stack([stream[s : s + recipe.sequence + 1] for s in starts.tolist()])


def token_loss(model: torch.nn.Module, ids: Tensor) -> Tensor:
    """Mean cross-entropy in nats of ids[:, 1:] given what comes before; ids int64 [B, S + 1]."""
    logits = model(input_ids=ids[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: torch.nn.Module, stream: Tensor, sequence: int) -> float:
    """Mean loss in nats per token over the whole stream, in windows that do not overlap."""
    count = (len(stream) - 1) // sequence
    windows = stream[: count * sequence + 1].unfold(0, sequence + 1, sequence)
    losses = [token_loss(model, w) * len(w) for w in windows.split(16)]
    return float(torch.stack(losses).sum() / count)


def train(model: LlamaForCausalLM, stream: Tensor, recipe: Recipe, seconds: float) -> int:
    """Train in place until the time is up; returns the number of tokens seen."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=recipe.matrix_lr, weight_decay=0.01, momentum=0.95)
    adam = torch.optim.AdamW(others, lr=recipe.other_lr, betas=(0.9, 0.95), weight_decay=0.0)
    optimizers = ((muon, recipe.matrix_lr), (adam, recipe.other_lr))
    generator = torch.Generator().manual_seed(recipe.seed)
    started = last_report = time.monotonic()
    step, smooth = 0, math.log(recipe.vocab_size)
    while (spent := (time.monotonic() - started) / seconds) < 1:
        scale = min(1.0, (step + 1) / 50, (1 - spent) / 0.6)
        for optimizer, lr in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * scale
        ids = batch_of(stream, recipe, generator).to(model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
            loss = token_loss(model, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        smooth += 0.05 * (float(loss.detach()) - smooth)
        if time.monotonic() - last_report > 30:
            last_report = time.monotonic()
            speed = step * recipe.batch * recipe.sequence / (last_report - started)
            click.echo(f"{spent:6.1%}  step {step}  loss {smooth:.3f}  {speed:.0f} tok/s", err=True)
    return step * recipe.batch * recipe.sequence


def write_card(out: Path, recipe: Recipe, facts: dict[str, Any]) -> None:
    held_out = "\n".join(f"- `{name}`" for name in HELD_OUT)
    card = f"""---
license: psf-2.0
library_name: transformers
pipeline_tag: text-generation
---
# Ingot's demo model

A Llama-architecture model of {facts["parameters"] / 1e6:.2f} M parameters that writes Python.
It exists so that Ingot's demo and tests have a real checkpoint; it is far too small to be useful
for anything else. Trained by `scripts/train_demo.py` on the standard library of
Python {facts["python"]} (tests left out), which is under the PSF licence.

| | |
|---|---|
| training text | {facts["train_bytes"] / 1e6:.1f} MB, {facts["train_tokens"] / 1e6:.2f} M tokens |
| tokens seen | {facts["seen"] / 1e6:.1f} M ({facts["seen"] / facts["train_tokens"]:.1f} epochs) |
| training time | {facts["minutes"]:.0f} minutes on {facts["where"]} |
| held-out loss, nats per token | {facts["loss"]:.4f} |
| held-out perplexity per token | {math.exp(facts["loss"]):.2f} |
| held-out perplexity per byte | {math.exp(facts["loss_per_byte"]):.3f} |
| held-out bits per byte | {facts["loss_per_byte"] / math.log(2):.3f} |

Held-out loss is that of the bf16 weights as shipped, in windows of {recipe.sequence} tokens that do
not overlap, over the files that training never saw:

{held_out}

Recipe: `{asdict(recipe)}`
"""
    (out / "README.md").write_text(card)


@click.command(help=__doc__)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder to write."
)
@click.option(
    "--minutes", default=90.0, show_default=True, help="Time budget of the training loop."
)
@click.option("--threads", default=torch.get_num_threads(), show_default=True)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
def main(out: Path, minutes: float, threads: int, device: str) -> None:
    torch.set_num_threads(threads)
    recipe = Recipe()
    texts, held_out_texts = corpus()
    tokenizer = train_tokenizer(texts, recipe.vocab_size)
    stream, held_out = encode(tokenizer, texts), encode(tokenizer, held_out_texts)
    model = build_model(recipe, tokenizer)
    parameters = sum(p.numel() for p in model.parameters())
    click.echo(f"{parameters / 1e6:.2f} M parameters, {len(stream) / 1e6:.2f} M tokens", err=True)
    seen = train(model.to(device), stream, recipe, minutes * 60)

    # What is measured is what is shipped: the bf16 weights, computed with in float32.
    model = model.cpu().bfloat16().float().eval()
    loss = held_out_loss(model, held_out, recipe.sequence)
    held_out_bytes = sum(len(t.encode()) for t in held_out_texts)
    out.mkdir(parents=True, exist_ok=True)
    model.bfloat16().save_pretrained(out)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS
    ).save_pretrained(out)
    facts = {
        "parameters": parameters,
        "python": sysconfig.get_python_version(),
        "train_bytes": sum(len(t.encode()) for t in texts),
        "train_tokens": len(stream),
        "seen": seen,
        "minutes": minutes,
        "where": f"{threads} CPU threads, float32" if device == "cpu" else device,
        "loss": loss,
        "loss_per_byte": loss * (len(held_out) - 1) / held_out_bytes,
    }
    write_card(out, recipe, facts)
    click.echo(json.dumps(facts))


if __name__ == "__main__":
    main()

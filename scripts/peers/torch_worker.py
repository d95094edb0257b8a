"""transformers on torch, eager: forward passes over a cache that grows; see protocol.py."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
import transformers
from protocol import Generate, serve, timed


def about(model: str) -> dict[str, str]:
    return {"version": f"{transformers.__version__}, torch {torch.__version__}", "head": "bf16"}


def load(model: str, threads: int) -> Generate:
    torch.set_num_threads(threads)
    network = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()

    def tokens(prompt: list[int], count: int) -> Iterator[int]:
        cache = transformers.DynamicCache(config=network.config)
        ids = torch.tensor([prompt])
        for _ in range(count):
            with torch.inference_mode():
                out = network(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids = out.logits[:, -1].argmax(-1, keepdim=True)
            yield int(ids)

    return lambda prompt, count: timed(tokens(prompt, count))


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    serve(about, load)

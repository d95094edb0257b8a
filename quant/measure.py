"""How good a model is on tokens: before it is quantised, and after."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import Decoder
from .observe import arguments


@torch.no_grad()
def measure(model: Any, tokens: Tensor) -> Tensor:
    """What `compare` takes, for samples [B, L] of tokens: a decoder's negative log-likelihood of
    each token but a sample's first, float32 [B (L - 1)]; an encoder's embeddings, the means of its
    outputs, float32 [B, H]."""
    of = _nll if isinstance(model, Decoder) else _embeddings
    return torch.cat([of(model, sample) for sample in torch.split(tokens, 1)])


def compare(before: Tensor, after: Tensor) -> dict[str, float]:
    """perplexity_before and perplexity_after, a token; or of embeddings mean_cosine, min_cosine."""
    if before.ndim == 1:
        return {
            "perplexity_before": math.exp(before.double().mean()),
            "perplexity_after": math.exp(after.double().mean()),
        }
    cosines = F.cosine_similarity(before.double(), after.double())
    return {"mean_cosine": float(cosines.mean()), "min_cosine": float(cosines.min())}


def _nll(model: Decoder, tokens: Tensor) -> Tensor:
    *inputs, _, cache = arguments(model, tokens)
    rows = torch.arange(tokens.numel() - 1)
    logits = model(*inputs, rows, cache)
    return F.cross_entropy(logits, tokens.flatten()[1:], reduction="none")


def _embeddings(model: Any, tokens: Tensor) -> Tensor:
    hidden: Tensor = model(*arguments(model, tokens))
    return hidden.view(*tokens.shape, -1).mean(1)

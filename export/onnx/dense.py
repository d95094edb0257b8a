"""The models with a dense signature: what ONNX Runtime and its like call.

Shape letters: B sequences or images, S new tokens of each, P tokens in the cache, R rows of logits
a sequence, K key-value heads, D head_dim, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_map

from ...models import Decoder
from ...models.encoder import ImageClassifier, TextEncoder
from .attention import Cache, Tokens, dense_attention


@dataclass(frozen=True)
class Signature:
    """A dense module and how to call it.

    inputs, outputs: name, dtype and shape of each, a size that varies by its letter. args: example
    inputs in that order, nested as the module takes them. defaults: of inputs that may be left out.
    """

    module: nn.Module
    args: tuple[Any, ...]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    defaults: dict[str, list[int]] = field(default_factory=dict)

    @property
    def dynamic_shapes(self) -> Any:
        """Which sizes vary, as torch.export takes it."""
        facts = iter(self.inputs)
        return tree_map(lambda _: _varying(next(facts)), self.args)


def _varying(fact: dict[str, Any]) -> dict[int, Any]:
    return {axis: Dim.DYNAMIC for axis, size in enumerate(fact["shape"]) if isinstance(size, str)}


def _fact(name: str, dtype: str, *shape: str | int) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def signature_of(model: nn.Module) -> Signature:
    """The dense form of a model, by its kind."""
    if isinstance(model, Decoder):
        return _decoder(model)
    if isinstance(model, TextEncoder):
        return _text_encoder(model)
    assert isinstance(model, ImageClassifier)
    return _image_classifier(model)


class DenseDecoder(nn.Module):
    """A decoder over B sequences of the same length, in one step and without padding.

    input_ids [B, S]; logit_rows [R]: after which of the S tokens logits are wanted, counted from
    the end, -1 the last; past: each layer's keys and values [B, K, P, D]. Returns logits
    [B, R, vocab_size], then each layer's keys and values [B, K, P + S, D].
    """

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, logit_rows: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        (batch, length), before = input_ids.shape, past[0].shape[2]
        ends = (torch.arange(batch) + 1) * length
        positions = (torch.arange(length) + before).expand(batch, length)
        caches = [Cache(key, value) for key, value in zip(past[::2], past[1::2], strict=True)]
        paged = torch.empty(0, dtype=torch.int64)  # where a paged cache lies: nobody asks
        with dense_attention(Tokens(batch, length, before)):
            logits = self.model(
                tokens=input_ids.flatten(),
                positions=positions.flatten(),
                slot_mapping=paged,
                query_start=torch.arange(batch + 1) * length,
                seq_lens=paged,
                context_lens=torch.ones(batch, dtype=torch.int64) * (before + length),
                block_table=paged,
                logit_rows=(ends[:, None] + logit_rows).flatten(),
                kv_cache=caches,
            )
        present = [tensor for cache in caches for tensor in (cache.key, cache.value)]
        return logits.view(batch, logit_rows.shape[0], -1), *present


def _decoder(model: Decoder) -> Signature:
    c = model.config
    layers = range(c.num_layers)

    def caches(name: str, length: str) -> list[dict[str, Any]]:
        shape = ("B", c.num_kv_heads, length, c.head_dim)
        names = [f"{name}.{layer}.{part}" for layer in layers for part in ("key", "value")]
        return [_fact(name, "float32", *shape) for name in names]

    past = caches("past_key_values", "P")
    # Sizes that differ, so that none is taken for another.
    example = [torch.zeros(2, c.num_kv_heads, 3, c.head_dim) for _ in past]
    return Signature(
        DenseDecoder(model),
        (torch.ones(2, 5, dtype=torch.int64), torch.tensor([-4, -3, -2, -1]), example),
        [_fact("input_ids", "int64", "B", "S"), _fact("logit_rows", "int64", "R"), *past],
        [_fact("logits", "float32", "B", "R", c.vocab_size), *caches("present", "P + S")],
        {"logit_rows": [-1]},
    )


class DenseTextEncoder(nn.Module):
    """A text encoder over padded sequences.

    input_ids, attention_mask (0: padding), token_type_ids [B, S] -> last_hidden_state [B, S, H].
    """

    def __init__(self, model: TextEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        batch, length = input_ids.shape
        seen = (attention_mask != 0)[:, None, None].expand(batch, 1, length, length)
        with dense_attention(Tokens(batch, length, 0, seen)):
            hidden: Tensor = self.model(
                tokens=input_ids.flatten(),
                token_type_ids=token_type_ids.flatten(),
                positions=torch.arange(length).expand(batch, length).flatten(),
                query_start=torch.arange(batch + 1) * length,
            )
        return hidden.view(batch, length, -1)


def _text_encoder(model: TextEncoder) -> Signature:
    names = ("input_ids", "attention_mask", "token_type_ids")
    example = torch.ones(2, 5, dtype=torch.int64)
    return Signature(
        DenseTextEncoder(model),
        (example, example.clone(), torch.zeros_like(example)),
        [_fact(name, "int64", "B", "S") for name in names],
        [_fact("last_hidden_state", "float32", "B", "S", model.config.hidden_size)],
    )


class DenseImageClassifier(nn.Module):
    """pixel_values [B, C, size, size] -> logits [B, num_labels], as in packages."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        with dense_attention(Tokens(pixel_values.shape[0], self.model.config.tokens, 0)):
            logits: Tensor = self.model(pixel_values)
        return logits


def _image_classifier(model: ImageClassifier) -> Signature:
    c = model.config
    size = (c.num_channels, c.image_size, c.image_size)
    return Signature(
        DenseImageClassifier(model),
        (torch.zeros(3, *size),),
        [_fact("pixel_values", "float32", "B", *size)],
        [_fact("logits", "float32", "B", c.num_labels)],
    )

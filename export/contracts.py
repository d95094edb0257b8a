"""Contracts: how each kind of model is traced, and what a package says of calling it.

Decoders and encoders are ragged over tokens, so one graph serves any batch. Shape letters: T tokens
of all sequences, B sequences or images, P blocks in the longest block table, R rows of logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..models import Decoder, Model
from ..models.encoder import ImageClassifier, TextEncoder
from ..quant.observe import blocks_of
from . import tokenizer
from .errors import ExportError
from .op_library import OpLibrary

BLOCK_SIZE = 16
_MOST_TOKENS = 1 << 20
_NUM_BLOCKS = 7  # of the example cache; the graph does not depend on it


@dataclass(frozen=True)
class Contract:
    """A module and how to call it.

    args, dynamic_shapes: for torch.export. inputs, outputs: name, dtype and shape of each, sizes
    that vary by their letter, as the manifest's `graph` states them; `symbols`: least and most of a
    letter. identity: what decides the graph beside the module's structure. card: the manifest's
    `model`; sections: more of the manifest, by kind. files: entries of the package. program: the
    graph, where it is traced already. blocks: modules by path, in the order in which they run, that
    are compiled once where they are alike (repeated.py). op_library, own_shims: of the user's own
    ops in it.
    """

    module: nn.Module
    args: tuple[object, ...]
    dynamic_shapes: Any
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    identity: str
    card: dict[str, Any]
    symbols: dict[str, tuple[int, int]] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    program: ExportedProgram | None = None
    blocks: Mapping[str, nn.Module] = field(default_factory=dict)
    op_library: OpLibrary | None = None
    own_shims: dict[Any, list[str]] = field(default_factory=dict)

    @property
    def ragged(self) -> bool:
        """Whether a run's sequences have lengths of their own, which its shapes do not say."""
        return self.card["kind"] in ("decoder", "encoder")


def of_checkpoint(model: Model, checkpoint: Path) -> Contract:
    """The contract of a checkpoint's model, by its kind."""
    contract = _by_kind(model, checkpoint)
    contract.sections["quantization"] = model.quantization
    return contract


def _by_kind(model: Model, checkpoint: Path) -> Contract:
    if isinstance(model, Decoder):
        return _decoder(model, checkpoint)
    if isinstance(model, TextEncoder):
        return _text_encoder(model, checkpoint)
    assert isinstance(model, ImageClassifier)
    return _image_classifier(model, checkpoint)


def _integers(*values: Any) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(value, dtype=torch.int64) for value in values)


def _fact(name: str, dtype: str, *shape: str | int) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def _card(model: Model, checkpoint: Path, **facts: Any) -> dict[str, Any]:
    return {
        "architecture": model.config.architecture,
        "kind": model.kind,
        "name": checkpoint.resolve().name,
        "parameters": model.parameter_count,
        "dtype": model.dtype,
        **facts,
    }


_DECODER_INPUTS: dict[str, tuple[str, ...]] = {
    "tokens": ("T",),
    "positions": ("T",),
    "slot_mapping": ("T",),
    "query_start": ("B+1",),
    "seq_lens": ("B",),
    "context_lens": ("B",),
    "block_table": ("B", "P"),
    "logit_rows": ("R",),
}


def _decoder(model: Decoder, checkpoint: Path) -> Contract:
    config, layers = model.config, model.config.num_layers
    # Two sequences of 5 and 3 new tokens: sizes that differ, so none is taken for another.
    integers = _integers(
        [1] * 8,
        [0, 1, 2, 3, 4, 0, 1, 2],
        [16, 17, 18, 19, 20, 64, 65, 66],
        [0, 5, 8],
        [5, 3],
        [5, 3],
        [[1, 2, 3, 0], [4, 5, 6, 0]],
        [0, 4, 5, 6, 7],
    )
    tokens, sequences = Dim("T", min=1, max=_MOST_TOKENS), Dim("B", min=1, max=1 << 16)
    blocks, rows = Dim("P", min=1, max=1 << 20), Dim("R", min=1, max=1 << 20)
    cache_blocks = Dim("num_blocks", min=1, max=1 << 24)
    dynamic_shapes = (
        {0: tokens},
        {0: tokens},
        {0: tokens},
        {0: Dim.DYNAMIC},  # B + 1, which the tracer finds by itself
        {0: sequences},
        {0: sequences},
        {0: sequences, 1: blocks},
        {0: rows},
        [{0: cache_blocks}] * layers,
    )
    inputs = [_fact(name, "int64", *shape) for name, shape in _DECODER_INPUTS.items()]
    inputs += [
        _fact(f"kv_cache.{layer}", "uint8", "num_blocks", model.bytes_per_block)
        for layer in range(layers)
    ]
    files = tokenizer.files(checkpoint)
    return Contract(
        model,
        (*integers, model.new_cache(_NUM_BLOCKS)),
        dynamic_shapes,
        inputs,
        [_fact("logits", "float32", "R", config.vocab_size)],
        identity=repr((config, model.kv_dtype)),
        card=_card(
            model,
            checkpoint,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_layers=layers,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            max_seq_len=config.max_seq_len,
        ),
        sections={
            "kv_cache": {
                "dtype": model.kv_dtype,
                "block_size": BLOCK_SIZE,
                "bytes_per_block": model.bytes_per_block,
                "num_layers": layers,
            },
            "generation": tokenizer.generation_defaults(checkpoint),
            "tokenizer": "ingot/tokenizer.json" in files,
        },
        files=files | tokenizer.byte_table(files, config.vocab_size),
        blocks=blocks_of(model),
    )


def _text_encoder(model: TextEncoder, checkpoint: Path) -> Contract:
    config = model.config
    tokens = Dim("T", min=1, max=_MOST_TOKENS)
    files = tokenizer.files(checkpoint)
    return Contract(
        model,
        _integers([1] * 8, [0] * 8, [0, 1, 2, 3, 4, 0, 1, 2], [0, 5, 8]),
        ({0: tokens}, {0: tokens}, {0: tokens}, {0: Dim.DYNAMIC}),
        [
            _fact("tokens", "int64", "T"),
            _fact("token_type_ids", "int64", "T"),
            _fact("positions", "int64", "T"),
            _fact("query_start", "int64", "B+1"),
        ],
        [_fact("hidden", "float32", "T", config.hidden_size)],
        identity=repr(config),
        card=_card(
            model,
            checkpoint,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            max_seq_len=config.max_seq_len,
        ),
        sections={
            "embedding": tokenizer.embedding_facts(checkpoint, config.max_seq_len),
            "tokenizer": "ingot/tokenizer.json" in files,
        },
        files=files | tokenizer.byte_table(files, config.vocab_size),
    )


def _image_classifier(model: ImageClassifier, checkpoint: Path) -> Contract:
    config = model.config
    size = (config.num_channels, config.image_size, config.image_size)
    preprocessor = tokenizer.read_json(checkpoint / "preprocessor_config.json", {})
    most = 1 << 12
    return Contract(
        model,
        (torch.zeros(3, *size),),
        ({0: Dim("B", min=1, max=most)},),
        [_fact("pixel_values", "float32", "B", *size)],
        [_fact("logits", "float32", "B", config.num_labels)],
        symbols={"B": (1, most)},
        identity=repr(config),
        card=_card(
            model,
            checkpoint,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            image_size=config.image_size,
            num_channels=config.num_channels,
            labels=list(config.labels),
        ),
        sections={"preprocessor": preprocessor, "tokenizer": False},
    )


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a tied tensor under each of its names."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(module.named_buffers(remove_duplicate=False))}


def capture(contract: Contract) -> ExportedProgram:
    """Export the contract's graph. Raises ExportError with what the tracer says of the module."""
    try:
        with torch.no_grad():
            return torch.export.export(
                contract.module,
                contract.args,
                dynamic_shapes=contract.dynamic_shapes,
                strict=False,
            )
    except Exception as error:  # the tracer's own are of many kinds, and the module's any
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(f"the module cannot be traced: {reason}") from error

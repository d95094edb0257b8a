"""BERT, ViT and DeiT give transformers' results, from transformers' own checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ingot import models
from tests.checkpoints import make_encoder, relative_error

TOLERANCE = 1e-4
BERT = {"vocab_size": 211, "max_position_embeddings": 128}
BERTS: dict[str, dict[str, Any]] = {
    "plain": BERT,
    "odd": {**BERT, "hidden_size": 66, "num_attention_heads": 3, "intermediate_size": 101},
    "gelu_new": {**BERT, "hidden_act": "gelu_new", "type_vocab_size": 3},
}
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", {"num_labels": 7}),
    "vit-odd-unbiased": (
        "ViTForImageClassification",
        {
            "hidden_size": 66,
            "num_attention_heads": 3,
            "intermediate_size": 101,
            "qkv_bias": False,
            "num_channels": 1,
            "patch_size": 7,
            "image_size": 35,
        },
    ),
    "deit": ("DeiTForImageClassification", {"num_labels": 3}),
    "deit-two-heads": ("DeiTForImageClassificationWithTeacher", {"num_labels": 5}),
}


def bert_hidden(ours: models.Model, sequences: list[list[int]]) -> list[torch.Tensor]:
    lengths = [len(s) for s in sequences]
    tokens = torch.tensor([t for s in sequences for t in s])
    positions = torch.tensor([i for s in sequences for i in range(len(s))])
    starts = torch.tensor([0, *lengths]).cumsum(0)
    hidden: torch.Tensor = ours(tokens, torch.zeros_like(tokens), positions, starts)
    return list(hidden.split(lengths))


@torch.no_grad()
@pytest.mark.parametrize("name", BERTS)
def test_bert(name: str, tmp_path: Path) -> None:
    folder = make_encoder(tmp_path, "BertModel", **BERTS[name])
    ours, theirs = models.load(folder), transformers.BertModel.from_pretrained(folder).eval()
    sequences = [[(7 * i + n) % 211 for i in range(n)] for n in (1, 17, 128, 30)]
    for sequence, hidden in zip(sequences, bert_hidden(ours, sequences), strict=True):
        expected = theirs(torch.tensor([sequence])).last_hidden_state[0]
        assert relative_error(hidden, expected) < TOLERANCE
    unused = sum(p.numel() for n, p in theirs.named_parameters() if n.startswith("pooler"))
    assert ours.parameter_count == theirs.num_parameters() - unused


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_names_of_old_files(prefix: str, tmp_path: Path) -> None:
    folder = make_encoder(tmp_path, "BertModel", **BERT)
    expected = bert_hidden(models.load(folder), [[1, 2, 3]])[0]
    path = folder / "model.safetensors"
    renamed = {
        prefix
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(path).items()
    }
    assert any(name.endswith("gamma") for name in renamed)
    save_file(renamed, path)
    assert torch.equal(bert_hidden(models.load(folder), [[1, 2, 3]])[0], expected)


@torch.no_grad()
@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, tmp_path: Path) -> None:
    kind, config = IMAGES[name]
    folder = make_encoder(tmp_path, kind, **config)
    ours = models.load(folder)
    theirs = getattr(transformers, kind).from_pretrained(folder).eval()
    for batch in (1, 3):
        shape = (batch, ours.config.num_channels, ours.config.image_size, ours.config.image_size)
        pixels = torch.randn(shape, generator=torch.Generator().manual_seed(batch))
        assert relative_error(ours(pixels), theirs(pixels).logits) < TOLERANCE
    assert ours.parameter_count == theirs.num_parameters()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["BertModel", "ViTForImageClassification"])  # norms after, before
def test_a_block_gives_the_rows_that_are_wanted(kind: str, tmp_path: Path) -> None:
    block = models.load(make_encoder(tmp_path, kind)).layers[0]
    x = torch.randn(11, 64, generator=torch.Generator().manual_seed(0))
    query_start, rows = torch.tensor([0, 4, 11]), torch.tensor([4, 0, 10])
    assert torch.equal(block(x, query_start, rows), block(x, query_start)[rows])


@torch.no_grad()
@pytest.mark.parametrize("size", [24, 48])
def test_other_image_sizes_interpolate_positions(size: int, tmp_path: Path) -> None:
    folder = make_encoder(tmp_path, "ViTForImageClassification", num_labels=4)
    ours = models.load(folder, image_size=size)
    theirs = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    expected = theirs(pixels, interpolate_pos_encoding=True).logits
    assert relative_error(ours(pixels), expected) < TOLERANCE


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_size": 33}, "--image-size 33 is no multiple of 8"),
        ({"max_seq_len": 8}, "it has no --max-seq-len"),
    ],
)
def test_sizes_that_do_not_fit(options: dict[str, int], sentence: str, tmp_path: Path) -> None:
    folder = make_encoder(tmp_path, "ViTForImageClassification")
    with pytest.raises(models.CheckpointError, match=sentence):
        models.load(folder, **options)

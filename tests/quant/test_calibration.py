"""Calibration texts: the same samples every time, evenly over the file; errors that name it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from ingot import models, quant
from ingot.models import CheckpointError
from ingot.quant import Calibration
from tests.checkpoints import make_encoder

LINES = [f"value_{i} = compute(value_{i - 1}, {i * 7})\n" for i in range(900)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(LINES))
    return path


def read(file: Path, checkpoint: Path, samples: int = 4, length: int | None = 64) -> torch.Tensor:
    return Calibration(file, samples, length).read(checkpoint, most=1024, vocab_size=4096)


def test_samples_lie_evenly_over_the_file(texts: Path, demo_checkpoint: Path) -> None:
    tokens = read(texts, demo_checkpoint)
    assert tokens.shape == (4, 64)
    assert torch.equal(tokens, read(texts, demo_checkpoint))
    tokenizer = Tokenizer.from_file(str(demo_checkpoint / "tokenizer.json"))
    first, second, third, last = (tokenizer.decode(sample.tolist()) for sample in tokens)
    assert first.startswith("value_0 = ")
    assert "value_3" in second
    assert "value_6" in third
    assert "value_899 = " in last


def test_a_short_file_gives_fewer_samples(texts: Path, demo_checkpoint: Path) -> None:
    tokens = read(texts, demo_checkpoint, samples=1000, length=None)
    assert tokens.shape[1] == 512
    assert 1 < len(tokens) < 1000
    assert len(torch.unique(tokens, dim=0)) == len(tokens)


def test_json_lines_are_texts(tmp_path: Path, demo_checkpoint: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n\n".join(json.dumps({"text": line, "id": 1}) for line in LINES[:40]))
    tokens = read(path, demo_checkpoint)
    start_of_text = 0
    assert int((tokens == start_of_text).sum()) > 4
    path.write_text('{"text": "x"}\n{"content": "y"}\n')
    with pytest.raises(CheckpointError, match=r"texts.jsonl, line 2: write \{\"text\""):
        read(path, demo_checkpoint)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"caf\xe9 " * 100, "is not UTF-8"),
        (b" \n\n", "is empty; give texts"),
        (b"x = 1\n", "tokens, less than one sample of 64; give more text"),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path, demo_checkpoint: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as error:
        read(path, demo_checkpoint)
    assert str(path) in str(error.value)


def test_what_is_missing(texts: Path, tmp_path: Path, demo_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="none.txt cannot be read"):
        read(tmp_path / "none.txt", demo_checkpoint)
    with pytest.raises(CheckpointError, match=r"tokenizer.json is missing"):
        read(texts, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer.json cannot be read"):
        read(texts, tmp_path)


def test_sizes_that_cannot_be(texts: Path, demo_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="--calib-samples 0 is not from 1"):
        read(texts, demo_checkpoint, samples=0)
    with pytest.raises(CheckpointError, match="--calib-length 1025 is not from 1 to 1024"):
        read(texts, demo_checkpoint, length=1025)
    with pytest.raises(CheckpointError, match="makes token .*, but the model has 100"):
        Calibration(texts, 4, 64).read(demo_checkpoint, most=1024, vocab_size=100)


def test_a_calibrated_recipe_asks_for_texts(demo_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="recipe awq is calibrated on texts; give --calib"):
        quant.load(models.plan(demo_checkpoint), quant.find("awq"))


def test_images_have_no_texts(texts: Path, tmp_path: Path) -> None:
    checkpoint = make_encoder(tmp_path / "vit", "ViTForImageClassification")
    with pytest.raises(CheckpointError, match="which ViTForImageClassification does not read"):
        quant.load(models.plan(checkpoint), quant.find("awq"), Calibration(texts))
    quant.load(models.plan(checkpoint), quant.find("int8-a8"), Calibration(texts))  # rounds


def test_a_checkpoint_without_tokenizer_fails_before_it_is_loaded(
    texts: Path, tmp_path: Path, demo_checkpoint: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(demo_checkpoint, copy)
    (copy / "tokenizer.json").unlink()
    plan = models.plan(copy)
    with pytest.raises(CheckpointError, match=r"copy/tokenizer.json is missing"):
        quant.load(plan, quant.find("awq"), Calibration(texts))
    assert all(parameter.is_meta for parameter in plan.model.parameters())

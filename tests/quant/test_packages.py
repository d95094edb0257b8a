"""Quantised packages: what the lean runtime computes is what the modules compute in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ingot
from ingot import models, quant
from ingot.export import ExportError, export_checkpoint
from tests.checkpoints import make_checkpoint, make_encoder, relative_error
from tests.families import FAMILIES
from tests.models.test_parity import forward

IDS = [(7 * i * i + 3) % 300 for i in range(40)]


# Generated code and eager torch differ in a float32's last bit; where that lies between two
# integers, x is rounded otherwise. With 32 bits there is nothing to see of it.
@pytest.mark.parametrize(
    ("recipe", "bits", "tolerance"), [("int4", 32, 1e-5), ("int8", 16, 1e-3), ("int4", 8, 0.1)]
)
@torch.no_grad()
def test_a_package_gives_the_modules_logits(
    recipe: str, bits: int, tolerance: float, demo_checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    export_checkpoint(demo_checkpoint, path, quant=recipe, group_size=64, activation_bits=bits)
    package = ingot.load(path)
    model: Any = quant.load(
        models.plan(demo_checkpoint), quant.find(recipe, 64), activation_bits=bits
    )
    assert package.manifest["quantization"] == model.quantization
    with package.session() as session:
        logits = session.logits(IDS)
    expected = forward(model, [(IDS, 0)], model.new_cache(33))[0]
    assert relative_error(torch.from_numpy(np.array(logits)), expected[-len(logits) :]) < tolerance


KINDS = {kind: config for kind, config in reversed(FAMILIES.values())}  # one configuration of each


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_family_is_quantised(kind: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", kind, **KINDS[kind])
    exact: Any = models.load(folder)
    found: Any = quant.load(models.plan(folder), quant.find("int8"))
    assert not any(isinstance(module, models.layers.Linear) for module in found.modules())
    assert found.parameter_count == exact.parameter_count
    ids = [i % exact.config.vocab_size for i in IDS]
    logits = [forward(model, [(ids, 0)], model.new_cache(33))[0] for model in (found, exact)]
    # Random weights of unit gain; 8 bits a weight have 2^-8 of a group's largest as their unit.
    assert relative_error(*logits) < 0.1


def test_a_report_compares_before_and_after(demo_checkpoint: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("for item in items:\n    print(item)\n" * 50)
    options: dict[str, Any] = {"report": text, "calib_length": 64}
    recipe = {"quant": "int8", "group_size": 64}
    record = export_checkpoint(demo_checkpoint, tmp_path / "a.pt2", **recipe, **options)
    quality = record["facts"]["quality"]
    assert 1 < quality["perplexity_before"] < 100
    assert quality["perplexity_after"] == pytest.approx(quality["perplexity_before"], rel=0.01)
    with pytest.raises(ExportError, match="before and after it is quantised"):
        export_checkpoint(demo_checkpoint, tmp_path / "b.pt2", **options)


@torch.no_grad()
def test_encoders_are_quantised(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "bert", "BertModel")
    tokens = torch.tensor(IDS[:10])
    inputs = (tokens, torch.zeros_like(tokens), torch.arange(10), torch.tensor([0, 10]))
    exact: Any = models.load(folder)
    found: Any = quant.load(models.plan(folder), quant.find("int8"))
    assert relative_error(found(*inputs), exact(*inputs)) < 0.02
    ids = torch.tensor([IDS[:16], IDS[16:32]])
    cosines = quant.compare(quant.measure(exact, ids), quant.measure(found, ids))
    assert 0.999 < cosines["min_cosine"] <= cosines["mean_cosine"] < 1


@torch.no_grad()
def test_image_models_are_quantised(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "vit", "ViTForImageClassification")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact: Any = models.load(folder)
    found: Any = quant.load(models.plan(folder), quant.find("int8"))
    assert relative_error(found(pixels), exact(pixels)) < 0.02


REFUSED = {
    "no recipe 'int5'": {"quant": "int5"},
    "--group-size 48 is none of": {"quant": "int4", "group_size": 48},
    "--group-size is for a recipe": {"group_size": 64},
    "--activation-bits 12 is none of": {"quant": "int4", "activation_bits": 12},
    "--activation-bits is for quantised weights": {"activation_bits": 8},
    "cannot be read as a recipe": {"quant": "nothing.json"},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_cannot_be_is_refused(sentence: str, demo_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises((ExportError, models.CheckpointError), match=sentence):
        export_checkpoint(demo_checkpoint, tmp_path / "model.pt2", **REFUSED[sentence])
    assert not list(tmp_path.iterdir())


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_checkpoint(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(models.CheckpointError, match=r"layers\.1\.mlp\.gate_up_proj.*NaN"):
        quant.load(models.plan(folder), quant.find("int4"))

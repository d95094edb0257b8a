"""A quantised checkpoint's logits are those of transformers on its dequantised weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ingot import models, quant
from tests.checkpoints import make_llama, reference, relative_error
from tests.models.test_parity import forward

from . import packers
from .packers import INT8_BY_TOKEN, Case

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
# Of the logits, by the bits of the activations: 1.9e-6, 1.8e-4 and 2.9e-2 were measured at most.
TOLERANCE = {32: 1e-5, 16: 5e-4, 8: 5e-2}


def write_twins(
    folder: Path,
    pack: Callable[[Case], dict[str, Tensor]],
    config_of: Callable[[Case], dict[str, Any]],
    case_of: Callable[..., dict[str, Any]],
) -> tuple[Path, Path]:
    """A checkpoint of codes, and one of the same weights dequantised."""
    plain = make_llama(folder / "plain", **SIZES)
    tensors = load_file(plain / "model.safetensors")
    codes, case = dict(tensors), None
    for seed, (name, weight) in enumerate(tensors.items()):
        if "_proj" not in name:
            continue
        path = name.removesuffix(".weight")
        rows, columns = weight.shape
        case = packers.make_case(rows, columns, seed=seed, **case_of(path))
        case.scales *= np.float16(8 / 2 ** (case.bits - 1))  # 8-bit weights as large as 4-bit ones
        tensors[name] = case.matrix()
        del codes[name]
        codes |= {packed.replace(packers.PATH, path): t for packed, t in pack(case).items()}
    assert case is not None
    save_file(tensors, plain / "model.safetensors", {"format": "pt"})
    quantised = folder / "quantised"
    quantised.mkdir()
    save_file({n: t.contiguous() for n, t in codes.items()}, quantised / "model.safetensors")
    config = json.loads((plain / "config.json").read_text())
    config["quantization_config"] = config_of(case)
    (quantised / "config.json").write_text(json.dumps(config))
    return quantised, plain


def by_token(case: Case) -> dict[str, Any]:
    group = packers.scheme(case)
    group["input_activations"] = INT8_BY_TOKEN
    return packers.compressed_config(case, "int-quantized", config_groups={"group_0": group})


def one_order(path: str) -> dict[str, Any]:
    return {"shuffled": True, "group_size": 64, "symmetric": True}


KINDS: dict[str, tuple[Any, Any, Any, int]] = {
    "awq": (packers.awq, packers.awq_config, lambda _: {"group_size": 64}, 16),
    "gptq": (packers.gptq, packers.gptq_config, lambda _: {"symmetric": True}, 16),
    "gptq-8": (packers.gptq, packers.gptq_config, lambda _: {"bits": 8, "symmetric": True}, 16),
    "gptq-act-order": (
        packers.gptq,
        lambda case: packers.gptq_config(case, desc_act=True),
        one_order,
        16,
    ),
    "compressed-tensors": (
        packers.pack_quantized,
        packers.compressed_config,
        lambda _: {"group_size": 32},
        16,
    ),
    "w8a8": (
        packers.int_quantized,
        by_token,
        lambda _: {"bits": 8, "group_size": -1, "symmetric": True},
        8,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_logits_are_those_of_the_dequantised_model(kind: str, tmp_path: Path) -> None:
    pack, config_of, case_of, activation_bits = KINDS[kind]
    quantised, plain = write_twins(tmp_path, pack, config_of, case_of)
    model: Any = quant.load(models.plan(quantised), None)
    linears = [m for m in model.modules() if isinstance(m, quant.QuantisedLinear)]
    assert {linear.rule.activation_bits for linear in linears} == {activation_bits}
    assert model.quantization["imported"]["method"]
    # Act-order's columns stand in another order for each linear: none can be one with another.
    assert len(linears) == 2 * (7 if kind == "gptq-act-order" else 4)
    ids = [(7 * i * i + 3) % 300 for i in range(40)]
    expected = reference(plain)(torch.tensor([ids])).logits[0]
    for bits in (activation_bits, 32):
        for linear in linears:
            linear.rule = dataclasses.replace(linear.rule, activation_bits=bits)
        logits = forward(model, [(ids, 0)], model.new_cache(33))[0]
        assert relative_error(logits, expected) < TOLERANCE[bits]
    assert model.parameter_count == models.load(plain).parameter_count


def test_a_recipe_is_for_the_rest(tmp_path: Path) -> None:
    quantised, _ = write_twins(tmp_path, *KINDS["awq"][:3])
    model = quant.load(models.plan(quantised), quant.find("int8"))
    assert model.quantization is not None
    assert model.quantization["name"].endswith("int8")
    assert model.quantization["layouts"] == {"w4.b64.g64.fp16.zp": 8, "w8.b64.g128.fp16": 2}


def test_a_checkpoint_that_only_says_so_is_refused(tmp_path: Path) -> None:
    quantised, plain = write_twins(tmp_path, *KINDS["awq"][:3])
    (plain / "config.json").write_text((quantised / "config.json").read_text())
    with pytest.raises(models.CheckpointError, match="no tensor of a linear is"):
        quant.load(models.plan(plain), None)

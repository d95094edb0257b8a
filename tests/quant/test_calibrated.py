"""AWQ and SmoothQuant on small models: what they are for, and that folding changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ingot import models, quant
from ingot.custom_ops.linear import pack_linear, unpack_linear
from ingot.models import CheckpointError
from ingot.models.layers import Linear, filled
from ingot.quant import Calibration, Rule, awq, fold, layerwise, smooth
from ingot.quant.observe import HELD_BACK, Seen, arguments, blocks_of
from ingot.quant.search import output_error, quantise
from ingot.quant.weight import weight_error
from tests.checkpoints import make_checkpoint, make_encoder
from tests.families import FAMILIES


def plan_of(folder: Path, kind: str, **config: Any) -> models.Plan:
    make = make_encoder if kind == "BertModel" else make_checkpoint
    return models.plan(make(folder, kind, **config))


def tokens_for(samples: int = 6, length: int = 24) -> Tensor:
    return torch.randint(100, (samples, length), generator=torch.Generator().manual_seed(3))


def outlier_inputs(rows: int = 400, columns: int = 128) -> Tensor:
    """Normal inputs of which four columns are fifty times as large."""
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    x[:, ::32] *= 50
    return x


def observed(x: Tensor) -> Seen:
    seen = Seen(len(x))
    for part in x.split(37):
        seen.add(part)
    return seen


def calibrated(plan: models.Plan, recipe: quant.Recipe) -> Any:
    """As `quant.load` does it, on random tokens."""
    model = plan.fill()
    rules = {
        f"{path}.{name}": rule
        for path, block in blocks_of(model).items()
        for name, module in block.named_modules()
        if isinstance(module, Linear) and (rule := recipe.rule(f"{path}.{name}"))
    }
    layerwise.calibrate(model, rules, tokens_for(), lambda _: None)
    return model


def outputs(model: Any, tokens: Tensor | None = None) -> Tensor:
    """Logits of each token, or an encoder's states."""
    tokens = tokens_for(2, 20) if tokens is None else tokens
    given = list(arguments(model, tokens))
    if isinstance(model, models.Decoder):
        given[7] = torch.arange(tokens.numel())
    return model(*given)


@pytest.mark.parametrize(
    ("search", "rule"),
    [
        (awq.search, Rule(".*", 4, method="awq")),
        (awq.search, Rule(".*", 4, 32, symmetric=False, method="awq")),
        (smooth.search, Rule(".*", 8, activation_bits=8, method="smooth")),
    ],
)
def test_columns_of_large_inputs_keep_their_precision(search: Any, rule: Rule) -> None:
    x = outlier_inputs()
    matrix = torch.randn(96, 128, generator=torch.Generator().manual_seed(2))
    seen = observed(x)
    found = search(matrix, seen, rule)
    weight, alpha = layerwise._quantise(matrix, seen, rule)
    assert alpha == found.alpha
    assert alpha is not None
    nearest = quantise(matrix, rule)
    error = output_error(matrix, seen.held_back, weight, rule)
    assert error < 0.8 * output_error(matrix, seen.held_back, nearest, rule)
    if rule.bits == 4:  # it takes from columns that matter less
        assert weight_error(weight, matrix) > weight_error(nearest, matrix)


def test_what_is_observed() -> None:
    x = outlier_inputs(5000)
    seen = observed(x)
    torch.testing.assert_close(seen.mean, x.abs().mean(0))
    assert torch.equal(seen.largest, x.abs().amax(0))
    assert seen.held_back.shape == (HELD_BACK, 128)
    assert torch.equal(seen.searched[0], x[0])
    assert torch.equal(seen.held_back[-1], x[-1])
    known = {tuple(row) for row in seen.searched.tolist()}
    assert not known & {tuple(row) for row in seen.held_back.tolist()}


def test_clips_narrow_a_group_whose_large_weight_meets_no_inputs() -> None:
    matrix = torch.randn(8, 64, generator=torch.Generator().manual_seed(4))
    matrix[3, 40] = 9
    x = torch.randn(300, 64, generator=torch.Generator().manual_seed(5))
    x[:, 40] = 0
    rule = Rule(".*", 4, 32)
    clips = awq.best_clip(matrix, x, rule)
    assert clips.shape == (8, 2)
    assert clips[3, 1] == 0.5
    clipped, nearest = quantise(matrix, rule, clips), quantise(matrix, rule)
    assert output_error(matrix, x, clipped, rule) < 0.9 * output_error(matrix, x, nearest, rule)


KINDS = ["qwen2-tied", "olmo2", "gemma3-pattern", "phi3-window", "gpt2", "olmo2-mha-biased"]


@pytest.mark.parametrize("name", KINDS)
def test_folding_changes_nothing_in_float(tmp_path: Path, name: str) -> None:
    kind, config = FAMILIES[name]
    model = plan_of(tmp_path / "float", kind, **config).fill()
    before = outputs(model)
    folded = 0
    for block in blocks_of(model).values():
        for consumer, source in fold.sources_of(block).items():
            linear = block.get_submodule(consumer)
            scale = torch.rand(linear.inputs) + 0.5
            matrix = unpack_linear(linear.weight, linear.outputs, linear.inputs)
            linear.weight = filled(pack_linear(matrix / scale))
            maker = block.get_submodule(source.module)
            if source.is_norm:
                fold.into_norm(maker, scale)
            else:
                rows = torch.ones(maker.outputs)
                rows[source.rows] = scale
                matrix = unpack_linear(maker.weight, maker.outputs, maker.inputs)
                maker.weight = filled(pack_linear(matrix * rows.unsqueeze(1)))
                if maker.bias is not None:
                    maker.bias = filled(maker.bias * rows)
            folded += 1
    assert folded > 0
    torch.testing.assert_close(outputs(model), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_folded_scales_give_what_input_scales_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In one block: the next would round what it sees another way."""
    kind, config = FAMILIES[name]
    config = {**config, "n_layer" if kind == "GPT2" else "num_hidden_layers": 1}
    recipe = quant.Recipe("test", (Rule(".*", 8, 32, method="smooth"),))
    folded = calibrated(plan_of(tmp_path / "a", kind, **config), recipe)
    monkeypatch.setattr(fold, "sources_of", lambda block: {})
    beside = calibrated(plan_of(tmp_path / "b", kind, **config), recipe)
    assert any(fact["scale_in"] not in (None, "input_scale") for fact in quant.report(folded))
    assert {fact["scale_in"] for fact in quant.report(beside)} <= {None, "input_scale"}
    expected = outputs(beside)
    # float16 scales of rows are rounded once more, by 2^-11.
    difference = (outputs(folded) - expected).norm() / expected.norm()
    assert difference < 2**-9


def test_an_encoder_is_calibrated_and_reports_each_linear(tmp_path: Path) -> None:
    model = calibrated(plan_of(tmp_path / "bert", "BertModel"), quant.find("int8-a8"))
    facts = quant.report(model)
    assert len(facts) == 8
    assert facts[0]["module"] == "layers.0.attention.qkv_proj"
    assert {fact["scale_in"] for fact in facts} <= {None, "input_scale"}
    assert all(0 < fact["output_error"] < 0.02 for fact in facts)


def test_the_same_texts_give_the_same_weights(tmp_path: Path) -> None:
    plans = [plan_of(tmp_path / str(i), "Llama") for i in range(2)]
    first, second = (calibrated(plan, quant.find("awq")).state_dict() for plan in plans)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_block_sees_what_the_ones_before_it_became(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "a", "Llama")
    block = plan.model.model.layers[1]
    seen: list[Tensor] = []
    block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model = calibrated(plan, quant.find("awq"))
    stepping_aside, while_calibrating, *_ = seen
    assert not torch.equal(stepping_aside, while_calibrating)
    seen.clear()
    outputs(model, tokens_for())
    assert torch.equal(while_calibrating, seen[0])


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.down_proj: its weights hold"),
        ("model.layers.1.input_layernorm.weight", "model.layers.1.self_attn.qkv_proj: its inputs"),
    ],
)
def test_what_is_not_finite_is_named(tmp_path: Path, parameter: str, said: str) -> None:
    plan = plan_of(tmp_path / "a", "Llama")
    model = plan.fill()
    model.get_parameter(parameter).flatten()[0] = float("nan")
    plan.fill = lambda: model  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="NaN or infinity") as error:
        calibrated(plan, quant.find("awq"))
    assert str(error.value).startswith(said)


def test_loading_with_texts(tmp_path: Path, demo_checkpoint: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "llama", vocab_size=4096)
    shutil.copy(demo_checkpoint / "tokenizer.json", checkpoint)
    texts = tmp_path / "texts.txt"
    texts.write_text("for item in items:\n    print(item)\n" * 50)
    calibration = Calibration(texts, samples=4, length=32)
    said: list[str] = []
    model = quant.load(
        models.plan(checkpoint), quant.find("awq"), calibration, progress=said.append
    )
    assert said == ["quantise layer 1 of 2", "quantise layer 2 of 2"]
    assert not any(isinstance(module, Linear) for module in model.modules())
    facts = {fact["module"]: fact for fact in quant.report(model)}
    assert len(facts) == 2 * 4 + 2
    assert facts["lm_head"]["output_error"] is None
    assert facts["lm_head"]["weight_error"] < 0.01
    assert facts["model.layers.0.mlp.down_proj"]["output_error"] is not None
    measured = quant.load(models.plan(checkpoint), quant.find("int4"), calibration)
    as_read = quant.load(models.plan(checkpoint), quant.find("int4"))
    for name, tensor in as_read.state_dict().items():
        assert torch.equal(tensor, measured.state_dict()[name]), name
    for fact in quant.report(measured)[1:-1]:
        assert fact["output_error"] == fact["rounded_error"]

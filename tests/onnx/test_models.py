"""What ONNX Runtime computes from an exported model is what our modules compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import ingot
from ingot import models, quant
from ingot.export import export_checkpoint
from ingot.profiling.engine import Request
from ingot.runtime.engines.onnx import OnnxEngine
from tests.checkpoints import make_encoder
from tests.conftest import tokens
from tests.models.test_parity import forward
from tests.onnx.conftest import CONFIGS, ExportOnnx
from tests.test_encoders import expected_embeddings, minilm_checkpoint, sentences  # noqa: F401

# The rest is like these: windows, caps, biases and learned positions are in them all.
QUICK = {"llama", "qwen3-dim48", "olmo2", "gemma2-low-caps-untied"}
TOLERANCE = 1e-4  # relative to the largest logit, as our modules' own parity


def ids(model: Any, count: int = 40) -> list[int]:
    return [(7 * i * i + 3) % model.config.vocab_size for i in range(count)]


@torch.no_grad()
def logits_of(model: Any, tokens: list[int]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = forward(model, [(tokens, 0)], model.new_cache(33))[0].numpy()
    return found


@torch.no_grad()
def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    cache, made, fed = model.new_cache(33), list(prompt), list(prompt)
    for _ in range(count):
        logits = forward(model, [(fed, len(made) - len(fed))], cache)[0]
        fed = [int(logits[-1].argmax())]
        made += fed
    return made[len(prompt) :]


def relative_error(ours: Any, theirs: Any) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.full) for n in CONFIGS]
)
def test_a_family_generates_as_our_modules_do(name: str, export_onnx: ExportOnnx) -> None:
    path = export_onnx(name)
    model = models.load(path.parent / "checkpoint")
    prompt, package = ids(model), ingot.load(path, threads=2)
    expected = logits_of(model, prompt)
    with package.session() as session:
        parts = [session.logits(part) for part in (prompt[:17], prompt[17:18], prompt[18:])]
    assert relative_error(np.concatenate(parts), expected) < TOLERANCE
    made = package.generate(prompt, max_new_tokens=64, ignore_eos=True, temperature=0)
    assert tokens(made) == greedy(model, prompt, 64)
    # Whatever ONNX Runtime fuses, each node's module is one of ours.
    trace = OnnxEngine(str(path)).run(Request(tuple(prompt), 2, threads=2), traced=True)
    found = {event.module for event in trace.events if event.category == "kernel"}
    assert found <= {path for path, _ in model.named_modules() if path}
    assert {"model.layers.1.mlp.down_proj", "lm_head"} <= found


def test_sequences_of_a_batch_do_not_meet(llama: Path) -> None:
    model = models.load(llama.parent / "checkpoint")
    prompts = np.array([ids(model, 9), ids(model, 18)[9:]])
    runtime, c = ingot.load(llama).runtime, model.config
    empty = np.zeros((2, c.num_kv_heads, 0, c.head_dim), np.float32)
    past = [fact for fact in runtime.get_inputs() if fact.name.startswith("past")]
    inputs = {fact.name: empty for fact in past}
    logits, *present = runtime.run(None, {"input_ids": prompts[:, :8], **inputs})
    assert logits.shape == (2, 1, c.vocab_size)  # without logit_rows: the last token's
    inputs = {fact.name: array for fact, array in zip(past, present, strict=True)}
    rows = np.array([-1])
    after = runtime.run(None, {"input_ids": prompts[:, 8:], "logit_rows": rows, **inputs})[0]
    for prompt, before, last in zip(prompts.tolist(), logits, after, strict=True):
        expected = logits_of(model, prompt)[-2:]
        assert relative_error(np.concatenate([before, last]), expected) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "recipe", "bits", "tolerance"),
    [
        ("olmo2-odd-tied", "int4", 32, TOLERANCE),  # codes of a tied head, partial groups
        pytest.param("llama", "int4", 32, TOLERANCE, marks=pytest.mark.full),
        pytest.param("qwen2-odd-yarn", "int8", 16, 1e-3, marks=pytest.mark.full),
        pytest.param("llama", "int4", 8, 0.1, marks=pytest.mark.full),
    ],
)
def test_codes_stay_codes(
    name: str, recipe: str, bits: int, tolerance: float, export_onnx: ExportOnnx
) -> None:
    path = export_onnx(name, quant=recipe, activation_bits=bits)
    plan = models.plan(path.parent / "checkpoint")
    model = quant.load(plan, quant.find(recipe), activation_bits=bits)
    package, prompt = ingot.load(path), ids(model)
    with package.session() as session:
        assert relative_error(session.logits(prompt), logits_of(model, prompt)) < tolerance
    operators = {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}
    assert "MatMulNBits" in operators
    assert "Gemm" not in operators
    assert package.manifest["quantization"] == model.quantization
    down = model.model.layers[1].mlp.down_proj
    assert package.manifest["code_bytes"]["model.layers.1.mlp.down_proj"] == (
        down.rows * -(-down.columns // 32) * 32 * down.bits // 8
    )


def test_an_order_and_scales_of_inputs_go_before_the_codes() -> None:
    from ingot.export.onnx import modules
    from ingot.models.layers import Linear

    linear = Linear(80, 5, True, torch.float32)
    rule = quant.Rule("*", bits=4, group_size=32, activation_bits=32)
    packed = quant.QuantisedLinear(linear, rule, None)
    codes = quant.round_to_nearest(torch.randn(5, 80), 4, 32, symmetric=False)
    weight = quant.QuantisedWeight(
        4,
        32,
        codes.codes,
        codes.scales,
        codes.zeros,
        input_scale=torch.rand(80) + 0.5,
        input_perm=torch.randperm(80),
    )
    packed.weight = torch.nn.Parameter(packed.hold(weight), requires_grad=False)
    packed.bias = torch.nn.Parameter(torch.randn(5), requires_grad=False)
    holder = torch.nn.Module()
    holder.linear = packed
    x = torch.randn(3, 80)
    expected = x @ weight.dequantised().T + packed.bias
    modules.swap(holder)
    made = torch.onnx.export(
        holder.linear.eval(), (x,), dynamo=True, opset_version=23, verbose=False
    )
    assert made is not None
    session = pytest.importorskip("onnxruntime").InferenceSession(
        made.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert relative_error(found, expected.numpy()) < 1e-5


def test_a_text_encoder_gives_the_modules_hidden_states(tmp_path: Path) -> None:
    checkpoint = make_encoder(tmp_path / "checkpoint", "BertModel", vocab_size=300)
    export_checkpoint(checkpoint, tmp_path / "bert.onnx", format="onnx")
    model: Any = models.load(checkpoint)
    package: Any = ingot.load(tmp_path / "bert.onnx")
    texts = [ids(model, count) for count in (1, 30, 7)]
    for text, found in zip(texts, package.hidden(texts), strict=True):
        count = len(text)
        inputs = (text, [0] * count, range(count), [0, count])
        with torch.no_grad():
            expected = model(*(torch.tensor(list(i)) for i in inputs)).numpy()
        assert relative_error(found, expected) < TOLERANCE
    means = np.stack([hidden.mean(0) for hidden in package.hidden(texts)])
    assert relative_error(package.embed_tokens(texts), means) < 1e-6


@pytest.mark.full
def test_minilm_embeds_as_transformers_does(minilm_checkpoint: Path, tmp_path: Path) -> None:  # noqa: F811
    export_checkpoint(minilm_checkpoint, tmp_path / "minilm.onnx", format="onnx")
    texts = sentences(60)
    ours = ingot.load(tmp_path / "minilm.onnx").embed(texts)
    for mine, theirs in zip(ours, expected_embeddings(minilm_checkpoint, texts), strict=True):
        assert float(torch.from_numpy(mine) @ theirs) >= 0.99999


@pytest.mark.full
def test_an_image_classifier_gives_the_modules_logits(tmp_path: Path) -> None:
    checkpoint = make_encoder(tmp_path / "checkpoint", "ViTForImageClassification")
    export_checkpoint(checkpoint, tmp_path / "vit.onnx", format="onnx")
    pixels = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        expected = models.load(checkpoint)(pixels).numpy()
    found = ingot.load(tmp_path / "vit.onnx").run(pixel_values=pixels.numpy())["logits"]
    assert relative_error(found, expected) < TOLERANCE


def test_nodes_say_which_module_they_serve(llama: Path) -> None:
    graph = onnx.load(llama, load_external_data=False).graph
    paths = {path for path, _ in models.load(llama.parent / "checkpoint").named_modules()}
    for node in graph.node:
        (about,) = node.metadata_props
        assert about.key == "namespace"
        assert about.value
        assert about.value in paths
        assert node.name.partition("/")[0] == about.value
    kinds = {node.op_type for node in graph.node}
    assert {"Attention", "RotaryEmbedding", "RMSNormalization", "Gemm", "Gather"} <= kinds
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes["input_ids"] == ["B", "S"]
    assert shapes["past_key_values.1.key"] == ["B", 2, "P", 24]
    assert shapes["present.1.value"] == ["B", 2, "P + S", 24]
    assert shapes["logits"] == ["B", "R", 300]

"""Quantised checkpoints that cannot be read are refused in a sentence that says which and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ingot.models import CheckpointError
from ingot.quant.importers import find
from tests.quant import packers
from tests.quant.packers import INT8_BY_TOKEN, PATH, Case, make_case, scheme

CASE = make_case()
SYMMETRIC = make_case(symmetric=True)
INT8 = make_case(bits=8, group_size=-1, symmetric=True)


def awq(**changes: Any) -> dict[str, Any]:
    return packers.awq_config(CASE, **changes)


def gptq(**changes: Any) -> dict[str, Any]:
    return packers.gptq_config(CASE, **changes)


def compressed(**changes: Any) -> dict[str, Any]:
    return packers.compressed_config(CASE, **changes)


def weights(**changes: Any) -> dict[str, Any]:
    return compressed(config_groups={"group_0": scheme(CASE, **changes)})


def activations(case: Case = INT8, **changes: Any) -> dict[str, Any]:
    group = {**scheme(case), "input_activations": {**INT8_BY_TOKEN, **changes}}
    return compressed(format="int-quantized", config_groups={"group_0": group})


def methods(*names: str) -> dict[str, tuple[dict[str, Any], str]]:
    sentence = "quantisation by '{}' is not supported; supported are awq, gptq, compressed-tensors"
    return {name: ({"quant_method": name}, sentence.format(name)) for name in names}


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    **methods("bitsandbytes", "fp8", "fbgemm_fp8", "hqq", "eetq", "aqlm", "quanto", "torchao"),
    **methods("mxfp4", "auto-round", "marlin", "exl3", "modelopt"),
    "bitsandbytes unnamed": ({"load_in_4bit": True}, "by 'bitsandbytes'"),
    "no method": ({"bits": 4}, "by 'none'"),
    "awq gemv": (awq(version="gemv"), "AWQ layout 'gemv' is not supported; supported is 'gemm'"),
    "awq gemv_fast": (awq(version="GEMV_FAST"), "AWQ layout 'GEMV_FAST'"),
    "awq marlin": (awq(version="marlin"), "AWQ layout 'marlin'"),
    "awq exllama": (awq(version="exllama"), "AWQ layout 'exllama'"),
    "awq format": (awq(version=None, format="gemv"), "AWQ layout 'gemv'"),
    "llm-awq": (awq(backend="llm-awq"), "AWQ layout 'llm-awq'"),
    "awq bits": (awq(bits=8), "weights of 8 bits are not supported; supported are 4"),
    "awq group": (awq(group_size=16), "group_size 16 is not supported; supported are multiples of"),
    "gptq marlin": (gptq(checkpoint_format="marlin"), "GPTQ layout 'marlin' is not supported"),
    "gptq is marlin": (gptq(is_marlin_format=True), "GPTQ layout 'marlin' is not supported"),
    "gptq planar": (gptq(checkpoint_format="gptq_p"), "GPTQ layout 'gptq_p' is not supported"),
    "gptq 2 bits": (gptq(bits=2), "weights of 2 bits are not supported; supported are 4 and 8"),
    "gptq 3 bits": (gptq(bits=3), "weights of 3 bits"),
    "gptq group": (gptq(group_size=48), "group_size 48"),
    "gptq pack": (gptq(pack_dtype="int16"), "pack_dtype 'int16' is not supported"),
    "gptq dynamic": (gptq(dynamic={"+:.*up": {"bits": 8}}), r"dynamic has the override '\+:.\*up'"),
    "gptq rotation": (gptq(rotation="hadamard"), "'rotation' = 'hadamard' is not understood"),
    "gptq malformed": (gptq(meta=[1]), r"meta is \[1\]; it must be an object"),
    "fp8 format": (compressed(format="float-quantized"), "format 'float-quantized' is not"),
    "nvfp4": (compressed(format="nvfp4-pack-quantized"), "format 'nvfp4-pack-quantized'"),
    "marlin-24": (compressed(format="marlin-24"), "format 'marlin-24'"),
    "naive": (compressed(format="naive-quantized"), "format 'naive-quantized'"),
    "mixed": (compressed(format="mixed-precision"), "format 'mixed-precision'"),
    "no format": (compressed(format=None), "format 'fakequant'"),
    "no groups": (compressed(config_groups=None), "field 'config_groups' is missing"),
    "preset": (compressed(config_groups={"W4A16": ["Linear"]}), "W4A16 of config_groups is a pre"),
    "sparsity": (compressed(sparsity_config={"format": "sparse-24-bitmask"}), "'sparse-24-bitmask"),
    "kv cache": (compressed(kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme is set"),
    "transforms": (compressed(transform_config={"config_groups": {"u": 1}}), "transform_config is"),
    "unknown field": (compressed(rotations=[1]), r"'rotations' = \[1\] is not understood"),
    "bad pattern": (compressed(ignore=["re:("]), r"'\(' is no regular expression"),
    "3 bits": (weights(num_bits=3), "group_0 has 'int' weights of 3 bits; supported are int of 4"),
    "float": (weights(type="float"), "group_0 has 'float' weights of 4 bits"),
    "block": (weights(strategy="block"), "group_0 has weights by 'block'"),
    "tensor": (weights(strategy=None, group_size=None), "group_0 has weights by 'tensor'"),
    "groups of 16": (weights(group_size=16), "group_size 16 is not supported"),
    "dynamic": (weights(dynamic=True), "group_0 has dynamic weights"),
    "actorder": (weights(actorder="random"), "group_0 has actorder 'random'"),
    "new option": (weights(noise=0.5), "group_0.weights 'noise' = 0.5 is not understood"),
    "static": (activations(dynamic=False), "group_0 has input_activations with static scales"),
    "by tensor": (activations(strategy="tensor"), "group_0 has input_activations by 'tensor'"),
    "asymmetric": (activations(symmetric=False), "by 'token', symmetric = False"),
    "fp8 inputs": (activations(type="float"), "weights of 8 bits with 'float' activations of 8"),
    "w4a8": (activations(CASE), "int weights of 4 bits with 'int' activations of 8"),
    "outputs": (
        compressed(config_groups={"g": {**scheme(CASE), "output_activations": INT8_BY_TOKEN}}),
        "g has output_activations",
    ),
    "inputs alone": (
        compressed(config_groups={"g": {**scheme(CASE), "weights": None}}),
        "g has no weights",
    ),
    "some inputs": (
        compressed(
            config_groups={
                "a": scheme(CASE),
                "b": {**scheme(INT8, ("lm_head",)), "input_activations": INT8_BY_TOKEN},
            }
        ),
        "activations of some modules only",
    ),
}


@pytest.mark.parametrize(("config", "sentence"), CONFIGS.values(), ids=CONFIGS)
def test_configs(tmp_path: Path, config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence) as caught:
        find({"quantization_config": config}, tmp_path, [])
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dense_with_scales(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="format 'dense' with scales"):
        find({"quantization_config": compressed(format="dense")}, tmp_path, ["a.weight_scale"])


def test_old_awq_file_of_another_layout(tmp_path: Path) -> None:
    old = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMV"}
    (tmp_path / "quant_config.json").write_text(json.dumps(old))
    with pytest.raises(CheckpointError, match=r"quant_config.json: AWQ layout 'GEMV'"):
        find({}, tmp_path, [])


Edit = Callable[[dict[str, Tensor]], object]


def put(part: str, change: Callable[[Tensor], Tensor]) -> Edit:
    """Replaces a tensor by what `change` makes of it."""

    def edit(tensors: dict[str, Tensor]) -> None:
        tensors[f"{PATH}.{part}"] = change(tensors[f"{PATH}.{part}"])

    return edit


def first(value: float) -> Callable[[Tensor], Tensor]:
    """Sets a tensor's first value."""

    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


def written(case: Case, layout: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if layout == "awq":
        return packers.awq_config(case), packers.awq(case)
    if layout == "gptq":
        return packers.gptq_config(case), packers.gptq(case)
    if layout == "int-quantized":
        return packers.compressed_config(case, layout), packers.int_quantized(case)
    return packers.compressed_config(case), packers.pack_quantized(case)


EIGHT = make_case(bits=8)
SHUFFLED = make_case(symmetric=True, shuffled=True)
TENSORS: dict[str, tuple[Case, str, Edit, str]] = {
    "awq cut": (
        *(CASE, "awq", put("qweight", lambda t: t[:-1])),
        r"up_proj.qweight is int32 \(255, 2\), config.json wants int32 \(256, 2\)",
    ),
    "awq zeros against scales": (
        *(CASE, "awq", put("qzeros", lambda t: t[:1])),
        r"up_proj.qzeros is int32 \(1, 2\), config.json wants int32 \(2, 2\)",
    ),
    "awq lacks zeros": (CASE, "awq", lambda t: t.pop(f"{PATH}.qzeros"), "lacks .*up_proj.qzeros"),
    "awq dtype": (
        *(CASE, "awq", put("scales", lambda t: t.double())),
        r"scales is float64 .* wants float16 or bfloat16 or float32 \(2, 16\)",
    ),
    "awq nan": (
        *(CASE, "awq", put("scales", first(float("nan")))),
        "up_proj.scales holds NaN or infinity",
    ),
    "awq symmetric": (
        *(SYMMETRIC, "awq", put("qzeros", first(0))),
        "up_proj.qzeros holds zero points, which zero_point = false rules out",
    ),
    "gptq cut": (
        *(CASE, "gptq", put("qweight", lambda t: t[:-1])),
        r"up_proj.qweight is int32 \(31, 16\), config.json wants int32 \(32, 16\)",
    ),
    "gptq zeros against scales": (
        *(CASE, "gptq", put("qzeros", lambda t: t[:, :1])),
        r"up_proj.qzeros is int32 \(2, 1\), config.json wants int32 \(2, 2\)",
    ),
    "gptq infinity": (
        *(CASE, "gptq", put("scales", first(float("inf")))),
        "up_proj.scales holds NaN or infinity",
    ),
    "gptq g_idx short": (
        *(CASE, "gptq", put("g_idx", lambda t: t[:-1])),
        r"up_proj.g_idx is int32 \(255,\), config.json wants int32 or int64 \(256,\)",
    ),
    "gptq g_idx beyond": (CASE, "gptq", put("g_idx", first(2)), "up_proj.g_idx names group 2 of 2"),
    "gptq g_idx below": (CASE, "gptq", put("g_idx", first(-1)), "g_idx names group -1 of 2"),
    "gptq g_idx unequal": (
        *(CASE, "gptq", put("g_idx", first(1))),
        "up_proj.g_idx has groups that are not of 128 columns each",
    ),
    "gptq symmetric": (
        *(SYMMETRIC, "gptq", put("qzeros", first(0))),
        "up_proj.qzeros holds zero points, which sym = true rules out",
    ),
    "gptq zero point 256": (
        *(EIGHT, "gptq", put("qzeros", first(-1))),
        "up_proj.qzeros holds a zero point of 256",
    ),
    "packed cut": (
        *(CASE, "pack-quantized", put("weight_packed", lambda t: t[:-1])),
        r"up_proj.weight_packed is int32 \(15, 32\), config.json wants int32 \(16, 32\)",
    ),
    "packed shape": (
        *(CASE, "pack-quantized", put("weight_shape", first(17))),
        r"up_proj.weight_shape says \[17, 256\], config.json wants \[16, 256\]",
    ),
    "packed zeros": (
        *(CASE, "pack-quantized", put("weight_zero_point", lambda t: t.to(torch.int8))),
        r"weight_zero_point is int8 \(2, 2\), config.json wants int32 \(2, 2\)",
    ),
    "packed nan": (
        *(CASE, "pack-quantized", put("weight_scale", first(float("nan")))),
        "up_proj.weight_scale holds NaN or infinity",
    ),
    "packed g_idx": (
        *(SHUFFLED, "pack-quantized", put("weight_g_idx", first(2))),
        "up_proj.weight_g_idx names group 2 of 2",
    ),
    "packed symmetric": (
        *(SYMMETRIC, "pack-quantized"),
        lambda t: t.update({f"{PATH}.weight_zero_point": torch.ones(16, 2, dtype=torch.int8)}),
        "up_proj.weight_zero_point is not zero, though symmetric = true",
    ),
    "int dtype": (
        *(INT8, "int-quantized", put("weight", lambda t: t.to(torch.int32))),
        r"up_proj.weight is int32 \(16, 256\), config.json wants int8 \(16, 256\)",
    ),
    "int beyond 4 bits": (
        *(CASE, "int-quantized", put("weight", first(8))),
        "up_proj.weight holds integers of more than 4 bits",
    ),
}


@pytest.mark.parametrize(("case", "layout", "edit", "sentence"), TENSORS.values(), ids=TENSORS)
def test_tensors(tmp_path: Path, case: Case, layout: str, edit: Edit, sentence: str) -> None:
    config, tensors = written(case, layout)
    edit(tensors)
    found = find({"quantization_config": config}, tmp_path, tensors.keys())
    assert found is not None
    assert found.takes(PATH)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        found.read(PATH, tensors, *case.shape)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_act_order_needs_g_idx(tmp_path: Path) -> None:
    config, tensors = gptq(desc_act=True), packers.gptq(CASE)
    del tensors[f"{PATH}.g_idx"]
    found = find({"quantization_config": config}, tmp_path, tensors.keys())
    assert found is not None
    with pytest.raises(CheckpointError, match="lacks .*up_proj.g_idx"):
        found.read(PATH, tensors, *CASE.shape)


@pytest.mark.parametrize(
    ("config", "name", "field"),
    [
        (awq(modules_to_not_convert=["mlp"]), f"{PATH}.qweight", "modules_to_not_convert"),
        (gptq(), "lm_head.qweight", "lm_head"),
        (compressed(), "lm_head.weight_packed", "ignore"),
        (compressed(ignore=["re:.*up_proj"]), f"{PATH}.weight_packed", "ignore"),
    ],
)
def test_quantised_against_the_config(
    tmp_path: Path, config: dict[str, Any], name: str, field: str
) -> None:
    found = find({"quantization_config": config}, tmp_path, [name])
    assert found is not None
    with pytest.raises(CheckpointError, match=rf"holds {name}, which config.json's '{field}' says"):
        found.takes(name.rpartition(".")[0])


def test_groups_that_cannot_be_decided(tmp_path: Path) -> None:
    groups = {"a": scheme(CASE), "b": scheme(INT8)}
    found = find({"quantization_config": compressed(config_groups=groups)}, tmp_path, [])
    assert found is not None
    with pytest.raises(CheckpointError, match="several config_groups claim .*up_proj"):
        found.tensors(PATH, 16, 256)
    groups = {"a": scheme(CASE, ("re:.*down_proj",))}
    found = find({"quantization_config": compressed(config_groups=groups)}, tmp_path, [])
    assert found is not None
    with pytest.raises(CheckpointError, match="no target in config_groups matches .*up_proj"):
        found.tensors(PATH, 16, 256)

"""Quantised checkpoints are read to the bit, as written by independent packers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ingot.quant.importers import Importer, find
from ingot.quant.weight import QuantisedWeight
from tests.quant import packers
from tests.quant.packers import PATH, Case, make_case

FOLDER = Path("checkpoint")


def importer(config: dict[str, Any], tensors: dict[str, Tensor]) -> Importer:
    found = find({"quantization_config": config}, FOLDER, tensors.keys())
    assert found is not None
    return found


def read(case: Case, config: dict[str, Any], tensors: dict[str, Tensor]) -> QuantisedWeight:
    """The weight, from exactly the tensors that the importer asks for."""
    found = importer(config, tensors)
    assert found.takes(PATH)
    expected = found.tensors(PATH, *case.shape)
    assert expected.keys() == tensors.keys()
    for name, (shape, dtypes) in expected.items():
        assert tensors[name].shape == shape
        assert tensors[name].dtype in dtypes
    return found.read(PATH, tensors, *case.shape)


def check(case: Case, config: dict[str, Any], tensors: dict[str, Tensor]) -> QuantisedWeight:
    weight = read(case, config, tensors)
    assert torch.equal(weight.dequantised(), case.matrix())
    rows, columns = case.shape
    groups = -(-columns // weight.group_size)
    assert weight.codes.shape == (rows, columns)
    assert weight.scales.shape == (rows, groups)
    assert weight.codes.dtype == torch.uint8
    assert weight.scales.dtype == torch.float16
    if case.symmetric:
        assert weight.zeros is None
    else:
        assert weight.zeros is not None
        assert weight.zeros.shape == (rows, groups)
        assert weight.zeros.dtype == torch.uint8
    for tensor in (weight.codes, weight.scales, weight.zeros):
        assert tensor is None or tensor.is_contiguous()
    return weight


# Inputs, group size on disk, group size of the ops'.
GROUPS = [
    (256, 32, 32),
    (256, 64, 64),
    (256, 128, 128),
    (512, 256, 128),
    (384, 192, 64),
    (192, 96, 32),
    (256, -1, 128),
    (72, -1, 128),
    (320, 128, 128),
]


@pytest.mark.parametrize(("columns", "on_disk", "ours"), GROUPS)
def test_group_sizes(columns: int, on_disk: int, ours: int) -> None:
    case = make_case(columns=columns, group_size=on_disk)
    written = [
        (packers.gptq_config(case), packers.gptq(case)),
        (packers.awq_config(case), packers.awq(case)),
        (packers.compressed_config(case), packers.pack_quantized(case)),
    ]
    for config, tensors in written:
        assert check(case, config, tensors).group_size == ours


@pytest.mark.parametrize("version", ["gemm", "GEMM", None])
def test_awq(version: str | None) -> None:
    case = make_case(rows=24, lowest_zero=0)
    check(case, packers.awq_config(case, version=version), packers.awq(case))


def test_awq_order_by_hand() -> None:
    """One word: nibble 1 is output 2, nibble 4 is output 1."""
    tensors = {
        f"{PATH}.qweight": torch.tensor([[0x75316420]] * 32, dtype=torch.int32),
        f"{PATH}.qzeros": torch.zeros(1, 1, dtype=torch.int32),
        f"{PATH}.scales": torch.ones(1, 8, dtype=torch.float16),
    }
    case = make_case(rows=8, columns=32, group_size=32)
    weight = read(case, packers.awq_config(case), tensors)
    assert weight.matrix()[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_awq_symmetric() -> None:
    case = make_case(symmetric=True)
    check(case, packers.awq_config(case), packers.awq(case))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_gptq(bits: int, symmetric: bool, version: int) -> None:
    case = make_case(bits=bits, symmetric=symmetric, lowest_zero=2 - version)
    config = packers.gptq_config(case, version)
    weight = check(case, config, packers.gptq(case, version))
    assert weight.input_perm is None


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, 128, 256])
def test_gptq_act_order(bits: int, group_size: int) -> None:
    case = make_case(columns=512, bits=bits, group_size=group_size, shuffled=True)
    weight = check(case, packers.gptq_config(case, desc_act=True), packers.gptq(case))
    assert weight.input_perm is not None
    assert weight.input_perm.dtype == torch.int64
    # The op's view: columns in the permuted order, groups in runs.
    assert torch.equal(weight.matrix(), case.matrix()[:, weight.input_perm])


def test_gptq_act_order_with_a_short_last_group() -> None:
    case = make_case(columns=320, shuffled=True)
    assert check(case, packers.gptq_config(case), packers.gptq(case)).input_perm is not None


def test_gptq_groups_in_runs_need_no_permutation() -> None:
    """Static groups under act-order, one group for all, and files without g_idx."""
    case = make_case()
    config = packers.gptq_config(case, desc_act=True, static_groups=True)
    assert check(case, config, packers.gptq(case)).input_perm is None
    whole = make_case(group_size=-1)
    config = packers.gptq_config(whole, desc_act=True)
    tensors = packers.gptq(whole)
    assert check(whole, config, tensors).input_perm is None
    del tensors[f"{PATH}.g_idx"]
    assert check(whole, config, tensors).input_perm is None


def test_gptq_zero_point_16() -> None:
    """15 stored as z - 1 by one who packs value by value."""
    case = make_case()
    case.zeros[:] = 16
    check(case, packers.gptq_config(case), packers.gptq(case))


@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_zero_points_by_word(bits: int) -> None:
    """GPTQModel subtracts 1 from all of a packed word at once, so that a zero point of 0 borrows
    from its neighbour."""
    case = make_case(bits=bits, lowest_zero=0)
    case.zeros[0, 0] = 0
    tensors = packers.gptq(case, version=2)
    ones = int("1" * 8 if bits == 4 else "01" * 4, 16)
    unsigned = tensors[f"{PATH}.qzeros"].numpy().view(np.uint32).astype(np.int64)
    lower = ((unsigned - ones) % 2**32).astype(np.uint32).view(np.int32)
    tensors[f"{PATH}.qzeros"] = torch.from_numpy(lower)
    config = packers.gptq_config(case, meta={"quantizer": ["gptqmodel:2.0.0"]})
    check(case, config, tensors)


def test_gptq_symmetric_files_that_misname_their_format() -> None:
    """Zero points of 8 under checkpoint_format "gptq" (vllm-project/vllm pull request 38966)."""
    case = make_case(symmetric=True)
    check(case, packers.gptq_config(case), packers.gptq(case, version=2))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [128, -1])
def test_pack_quantized(bits: int, symmetric: bool, group_size: int) -> None:
    case = make_case(  # 12 rows: the last word of the zero points is not full
        rows=12, bits=bits, group_size=group_size, symmetric=symmetric, lowest_zero=0
    )
    found = importer(packers.compressed_config(case), packers.pack_quantized(case))
    assert found.activation_bits == 16
    check(case, packers.compressed_config(case), packers.pack_quantized(case))


@pytest.mark.parametrize("actorder", ["group", "dynamic"])
def test_pack_quantized_actorder(actorder: str) -> None:
    case = make_case(symmetric=True, shuffled=True)
    groups = {"group_0": packers.scheme(case, actorder=actorder)}
    config = packers.compressed_config(case, config_groups=groups)
    assert check(case, config, packers.pack_quantized(case)).input_perm is not None


@pytest.mark.parametrize("actorder", ["weight", "static", False])
def test_pack_quantized_actorder_of_weights_alone(actorder: str) -> None:
    case = make_case(symmetric=True)
    groups = {"group_0": packers.scheme(case, actorder=actorder)}
    config = packers.compressed_config(case, config_groups=groups)
    assert check(case, config, packers.pack_quantized(case)).input_perm is None


def test_pack_quantized_g_idx_never_set() -> None:
    case = make_case(symmetric=True)
    tensors = packers.pack_quantized(case)
    tensors[f"{PATH}.weight_g_idx"] = torch.full((256,), -1, dtype=torch.int32)
    assert check(case, packers.compressed_config(case), tensors).input_perm is None


def test_zero_points_of_symmetric_weights() -> None:
    """Older files hold them, all zero."""
    case = make_case(symmetric=True)
    tensors = packers.pack_quantized(case)
    tensors[f"{PATH}.weight_zero_point"] = torch.zeros(16, 2, dtype=torch.int8)
    check(case, packers.compressed_config(case), tensors)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [-1, 128])
def test_int_quantized(symmetric: bool, group_size: int) -> None:
    case = make_case(bits=8, group_size=group_size, symmetric=symmetric, lowest_zero=0)
    group = {**packers.scheme(case), "input_activations": packers.INT8_BY_TOKEN}
    config = packers.compressed_config(case, "int-quantized", config_groups={"group_0": group})
    tensors = packers.int_quantized(case)
    assert importer(config, tensors).activation_bits == 8
    check(case, config, tensors)


@pytest.mark.parametrize(
    ("dtype", "scale", "stored"),
    [
        (torch.bfloat16, 2.0**-6, torch.float16),
        (torch.float32, 2.0**-24, torch.float16),
        (torch.bfloat16, 2.0**-25, torch.float32),
        (torch.float32, 0.1, torch.float32),
        (torch.bfloat16, 1e5, torch.float32),
    ],
)
def test_scales_are_exact(dtype: torch.dtype, scale: float, stored: torch.dtype) -> None:
    case = make_case(symmetric=True)
    tensors = packers.pack_quantized(case)
    scales = torch.full((16, 2), scale).to(dtype)
    tensors[f"{PATH}.weight_scale"] = scales
    weight = read(case, packers.compressed_config(case), tensors)
    assert weight.scales.dtype == stored
    assert torch.equal(weight.scales.float(), scales.float())


LAYOUTS = {
    "awq": (packers.awq_config, packers.awq),
    "gptq": (packers.gptq_config, packers.gptq),
    "pack": (packers.compressed_config, packers.pack_quantized),
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["awq", "gptq", "pack"]),
    st.sampled_from([4, 8]),
    st.integers(1, 5),
    st.integers(1, 20),
    st.sampled_from([-1, 32, 64]),
    st.integers(0, 2**32),
)
def test_codes_survive(
    layout: str, bits: int, eights: int, columns: int, group_size: int, seed: int
) -> None:
    """Any codes and zero points, of any size that the layout can hold."""
    case = make_case(
        rows=eights * 8,
        columns=columns * 8,
        bits=4 if layout == "awq" else bits,
        group_size=group_size,
        shuffled=layout != "awq",
        seed=seed,
    )
    write_config, write = LAYOUTS[layout]
    tensors = write(case)
    weight = check(case, write_config(case), tensors)
    order = weight.input_perm if weight.input_perm is not None else torch.arange(columns * 8)
    assert torch.equal(weight.codes.long(), torch.from_numpy(case.codes)[:, order])


def test_which_linears_are_quantised() -> None:
    case = make_case()
    names = [f"{PATH}.qweight", "model.layers.0.mlp.down_proj.weight", "lm_head.weight"]
    config = packers.awq_config(case, modules_to_not_convert=["down_proj", "proj"])
    found = find({"quantization_config": config}, FOLDER, names)
    assert found is not None
    assert found.takes(PATH)
    assert not found.takes("model.layers.0.mlp.down_proj")
    assert not found.takes("lm_head")


def test_gptq_with_a_quantised_head() -> None:
    config = packers.gptq_config(make_case(), lm_head=True)
    found = find({"quantization_config": config}, FOLDER, ["lm_head.qweight"])
    assert found is not None
    assert found.takes("lm_head")


def test_gptq_modules_left_out_by_dynamic() -> None:
    case = make_case()
    config = packers.gptq_config(case, dynamic={"-:.*down_proj": {}})
    assert importer(config, packers.gptq(case)).takes(PATH)


def test_config_groups_by_name_pattern_and_class() -> None:
    four = make_case(symmetric=True)
    eight = make_case(bits=8, group_size=-1, symmetric=True)
    groups = {
        "rest": packers.scheme(four),
        "down": packers.scheme(eight, ("re:.*down_proj$",)),
        "one": packers.scheme(eight, ("model.layers.0.mlp.up_proj",)),
    }
    found = importer(packers.compressed_config(four, config_groups=groups), {})
    wide = {"weight_packed": (16, 64), "weight_scale": (16, 1), "weight_shape": (2,)}
    narrow = {"weight_packed": (16, 32), "weight_scale": (16, 2), "weight_shape": (2,)}
    for module, shapes in [("up_proj", wide), ("down_proj", wide), ("gate_proj", narrow)]:
        path = f"model.layers.0.mlp.{module}"
        held = {name: shape for name, (shape, _) in found.tensors(path, 16, 256).items()}
        assert held == {f"{path}.{part}": shape for part, shape in shapes.items()}


def test_config_groups_of_two_formats() -> None:
    four = make_case(symmetric=True)
    eight = make_case(bits=8, group_size=-1, symmetric=True)
    groups = {
        "up": {**packers.scheme(four, ("re:.*up_proj$",)), "format": "pack-quantized"},
        "rest": {**packers.scheme(eight), "format": "int-quantized"},
    }
    config = packers.compressed_config(four, "mixed-precision", config_groups=groups)
    check(four, config, packers.pack_quantized(four))
    found = importer(config, {})
    down = "model.layers.0.mlp.down_proj"
    assert found.tensors(down, 16, 256).keys() == {f"{down}.weight", f"{down}.weight_scale"}


def test_gptq_without_sym_reads_its_zero_points() -> None:
    case = make_case()
    config = packers.gptq_config(case)
    del config["sym"]
    check(case, config, packers.gptq(case))


def test_older_files_of_their_own(tmp_path: Path) -> None:
    """AutoAWQ's quant_config.json and AutoGPTQ's quantize_config.json."""
    case = make_case()
    awq, gptq = tmp_path / "awq", tmp_path / "gptq"
    awq.mkdir()
    gptq.mkdir()
    old: dict[str, Any] = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}
    (awq / "quant_config.json").write_text(json.dumps(old))
    new = packers.gptq_config(case)
    old = {name: new[name] for name in ("bits", "group_size", "damp_percent", "desc_act", "sym")}
    (gptq / "quantize_config.json").write_text(json.dumps(old))
    for folder, tensors in ((awq, packers.awq(case)), (gptq, packers.gptq(case))):
        found = find({}, folder, tensors.keys())
        assert found is not None
        weight = found.read(PATH, tensors, *case.shape)
        assert torch.equal(weight.dequantised(), case.matrix())


def test_not_quantised(tmp_path: Path) -> None:
    names = [f"{PATH}.weight"]
    assert find({}, tmp_path, names) is None
    assert find({"quantization_config": None}, tmp_path, names) is None
    dense = {"quant_method": "compressed-tensors", "format": "dense"}
    assert find({"quantization_config": dense}, tmp_path, names) is None


def test_descriptions() -> None:
    case = make_case()
    found = importer(packers.gptq_config(case, desc_act=True), {})
    assert (found.recipe_name, found.activation_bits) == ("gptq", 16)
    assert found.describe() == {
        "method": "gptq",
        "bits": 4,
        "group_size": 128,
        "symmetric": False,
        "desc_act": True,
    }
    assert importer(packers.awq_config(case), {}).describe()["method"] == "awq"
    (group,) = importer(packers.compressed_config(case), {}).describe()["groups"]
    assert (group["bits"], group["group_size"], group["symmetric"]) == (4, 128, False)
    for config in (packers.gptq_config, packers.awq_config, packers.compressed_config):
        json.dumps(importer(config(case), {}).describe())

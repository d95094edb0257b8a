"""Quantised weights as other tools write them: their published packing rules, one value at a time.

Nothing here is shared with `ingot.quant.importers`, which it is there to check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

PATH = "model.layers.0.mlp.up_proj"


@dataclass
class Case:
    """W[n, k] = (codes[n, k] - zeros[n, g_idx[k]]) * scales[n, g_idx[k]], unpacked."""

    bits: int
    group_size: int
    codes: np.ndarray[Any, Any]  # int [N, K]
    zeros: np.ndarray[Any, Any]  # int [N, G]
    scales: np.ndarray[Any, Any]  # float16 [N, G]
    g_idx: np.ndarray[Any, Any]  # int [K]
    symmetric: bool

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.codes.shape
        return rows, columns

    def matrix(self) -> Tensor:
        """W, float32 [N, K]."""
        weight = np.empty(self.codes.shape, np.float32)
        for k, group in enumerate(self.g_idx):
            difference = (self.codes[:, k] - self.zeros[:, group]).astype(np.float32)
            weight[:, k] = difference * self.scales[:, group].astype(np.float32)
        return torch.from_numpy(weight)


def make_case(
    rows: int = 16,
    columns: int = 256,
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = False,
    shuffled: bool = False,
    lowest_zero: int = 1,
    seed: int = 0,
) -> Case:
    """Random values. shuffled: a group's columns are anywhere, as act-order leaves them."""
    draw = np.random.default_rng(seed)
    width = columns if group_size == -1 else group_size
    groups = -(-columns // width)
    zeros = draw.integers(lowest_zero, 2**bits, (rows, groups))
    if symmetric:
        zeros = np.full((rows, groups), 2 ** (bits - 1))
    g_idx = np.arange(columns) // width
    return Case(
        bits,
        group_size,
        draw.integers(0, 2**bits, (rows, columns)),
        zeros,
        draw.uniform(0.001, 0.02, (rows, groups)).astype(np.float16),
        draw.permutation(g_idx) if shuffled else g_idx,
        symmetric,
    )


def pack_line(values: Any, bits: int) -> list[int]:
    """Integers in a row, the first in the lowest bits, as int32 words."""
    whole = 0
    for i, value in enumerate(values):
        assert 0 <= value < 2**bits
        whole |= int(value) << (bits * i)
    count = -(-len(values) * bits // 32)
    unsigned = [(whole >> (32 * word)) & 0xFFFFFFFF for word in range(count)]
    return [word - 2**32 if word >= 2**31 else word for word in unsigned]


def pack_rows(matrix: Any, bits: int) -> Tensor:
    """[R, C] -> int32 [R, C * bits / 32]."""
    return torch.tensor([pack_line(row, bits) for row in matrix], dtype=torch.int32)


def _half(scales: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(scales))


def awq(case: Case) -> dict[str, Tensor]:
    """AutoAWQ, version "gemm": in each word, eight outputs in the order 0 2 4 6 1 3 5 7."""

    def interleaved(matrix: Any) -> list[list[int]]:
        order = (0, 2, 4, 6, 1, 3, 5, 7)
        return [
            [row[start + i] for start in range(0, len(row), 8) for i in order] for row in matrix
        ]

    return {
        f"{PATH}.qweight": pack_rows(interleaved(case.codes.T), 4),
        f"{PATH}.qzeros": pack_rows(interleaved(case.zeros.T), 4),
        f"{PATH}.scales": _half(case.scales.T),
    }


def gptq(case: Case, version: int = 1) -> dict[str, Tensor]:
    """GPTQ: weights packed along the inputs, zero points along the outputs, less one in v1."""
    less = 1 if version == 1 else 0
    return {
        f"{PATH}.qweight": pack_rows(case.codes, case.bits).t().contiguous(),
        f"{PATH}.qzeros": pack_rows(case.zeros.T - less, case.bits),
        f"{PATH}.scales": _half(case.scales.T),
        f"{PATH}.g_idx": torch.from_numpy(case.g_idx.astype(np.int32)),
    }


def pack_quantized(case: Case) -> dict[str, Tensor]:
    """compressed-tensors: weights packed along the inputs, zero points along the outputs."""
    tensors = {
        f"{PATH}.weight_packed": pack_rows(case.codes, case.bits),
        f"{PATH}.weight_scale": _half(case.scales),
        f"{PATH}.weight_shape": torch.tensor(case.shape),
    }
    if not case.symmetric:
        zeros = pack_rows(case.zeros.T, case.bits).t().contiguous()
        tensors[f"{PATH}.weight_zero_point"] = zeros
    if not np.array_equal(case.g_idx, np.sort(case.g_idx)):
        tensors[f"{PATH}.weight_g_idx"] = torch.from_numpy(case.g_idx.astype(np.int32))
    return tensors


def int_quantized(case: Case) -> dict[str, Tensor]:
    """compressed-tensors: one int8 for each weight."""
    middle = 2 ** (case.bits - 1)
    tensors = {
        f"{PATH}.weight": torch.from_numpy((case.codes - middle).astype(np.int8)),
        f"{PATH}.weight_scale": _half(case.scales),
    }
    if not case.symmetric:
        zeros = torch.from_numpy((case.zeros - middle).astype(np.int8))
        tensors[f"{PATH}.weight_zero_point"] = zeros
    return tensors


def awq_config(case: Case, **changes: Any) -> dict[str, Any]:
    """config.json's quantization_config, as AutoAWQ writes it."""
    return {
        "quant_method": "awq",
        "zero_point": not case.symmetric,
        "group_size": case.group_size,
        "bits": case.bits,
        "version": "gemm",
        "modules_to_not_convert": None,
        **changes,
    }


def gptq_config(case: Case, version: int = 1, **changes: Any) -> dict[str, Any]:
    """As AutoGPTQ and GPTQModel write it."""
    return {
        "quant_method": "gptq",
        "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
        "bits": case.bits,
        "group_size": case.group_size,
        "sym": case.symmetric,
        "desc_act": False,
        "static_groups": False,
        "true_sequential": True,
        "damp_percent": 0.1,
        "lm_head": False,
        "is_marlin_format": False,
        "model_name_or_path": None,
        **changes,
    }


INT8_BY_TOKEN = {
    "num_bits": 8,
    "type": "int",
    "symmetric": True,
    "strategy": "token",
    "dynamic": True,
    "group_size": None,
    "observer": None,
}


def scheme(case: Case, targets: tuple[str, ...] = ("Linear",), **weights: Any) -> dict[str, Any]:
    """One of compressed-tensors' config_groups."""
    by_channel = case.group_size == -1
    return {
        "targets": list(targets),
        "input_activations": None,
        "output_activations": None,
        "weights": {
            "num_bits": case.bits,
            "type": "int",
            "symmetric": case.symmetric,
            "strategy": "channel" if by_channel else "group",
            "group_size": None if by_channel else case.group_size,
            "dynamic": False,
            "actorder": None,
            "block_structure": None,
            "observer": "minmax",
            "observer_kwargs": {},
            **weights,
        },
    }


def compressed_config(case: Case, layout: str = "pack-quantized", **changes: Any) -> dict[str, Any]:
    """As llm-compressor writes it."""
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"group_0": scheme(case)},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "sparsity_config": {},
        "transform_config": {},
        "version": "0.12.2",
        **changes,
    }

"""The CUDA ops on a machine without a GPU: their sources, compiled over an emulation of CUDA's
threads (emulation/cuda_emulation.h), called on CPU memory that is said to be the GPU's."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch

from ingot import native, ops_library
from ingot.custom_ops.schema import Schema
from ingot.ops_library import CUDA, DTYPES, DLTensor

# Of the threads, see emulation/cuda_emulation.h: for INGOT_EMULATION_ORDER.
ORDERS = ("forward", "backward")

_GPU = (CUDA, 0)
_DTYPES = {getattr(torch, name): code_bits for name, code_bits in DTYPES.items()}


@cache
def library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(native.find("tests/libingot_ops_cuda_emulated.so.1")))
    lib.ingot_cuda_ops_last_error.restype = ctypes.c_char_p
    return lib


def call(schema: Schema, *args: Any) -> torch.Tensor:
    """The op of `schema` on CPU tensors. Raises RuntimeError with the library's sentence."""
    function = getattr(library(), f"ingot_cuda_op_{schema.name}")
    tensors: list[DLTensor] = []

    def argument(kind: str, value: Any) -> Any:
        if value is None or not kind.startswith("Tensor"):
            return ops_library.scalar(kind, value)
        tensors.append(_describe(value))
        return ctypes.byref(tensors[-1])

    arguments = [argument(a.type, value) for a, value in zip(schema.arguments, args, strict=True)]
    output = ops_library.unallocated(_GPU)
    for _ in range(2):  # the first asks for the output's shape
        if function(*arguments, ctypes.byref(output), None) != 0:
            raise RuntimeError(library().ingot_cuda_ops_last_error().decode())
        if output.data is None:
            dtype = next(d for d, it in _DTYPES.items() if it == (output.code, output.bits))
            # Every element is the op's to write.
            result = torch.full(output.shape[: output.ndim], torch.nan, dtype=dtype)
            output = _describe(result)
    return result


def _describe(tensor: torch.Tensor) -> DLTensor:
    dtype = _DTYPES[tensor.dtype]
    return ops_library.tensor(tensor.data_ptr(), dtype, tensor.shape, tensor.stride(), _GPU)

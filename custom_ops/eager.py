"""Eager CPU implementations: torch tensors go to libingot_ops.so.1 as DLTensor structs."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..native import find
from .schema import Schema


class DLTensor(ctypes.Structure):
    """DLPack's DLTensor (csrc/support/dltensor.h) with DLDevice and DLDataType spelled out."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_CPU = 1
_MAX_DIMS = 8
# Made once: to make a ctypes array type costs more than a call.
_DIMS = [ctypes.c_int64 * n for n in range(_MAX_DIMS + 1)]
# DLPack's (code, bits): code 0 int, 1 uint, 2 float, 4 bfloat, 6 bool.
_DTYPES = {
    torch.uint8: (1, 8),
    torch.int8: (0, 8),
    torch.int16: (0, 16),
    torch.int32: (0, 32),
    torch.int64: (0, 64),
    torch.float16: (2, 16),
    torch.float32: (2, 32),
    torch.float64: (2, 64),
    torch.bfloat16: (4, 16),
    torch.bool: (6, 8),
}
_TORCH_DTYPES = {code_bits: dtype for dtype, code_bits in _DTYPES.items()}
_SCALARS: dict[str, Any] = {"int": ctypes.c_int64, "float": ctypes.c_double, "bool": ctypes.c_int32}


@functools.cache
def library() -> ctypes.CDLL:
    """libingot_ops.so.1, opened at the first call of an op."""
    lib = ctypes.CDLL(str(find("libingot_ops.so.1")))
    for name in ("ingot_ops_last_error", "ingot_ops_level", "ingot_ops_name", "ingot_ops_schema"):
        getattr(lib, name).restype = ctypes.c_char_p
    lib.ingot_ops_set_level.argtypes = [ctypes.c_char_p]
    return lib


def last_error() -> str:
    """The sentence of this thread's last failed call into the library."""
    message: bytes = library().ingot_ops_last_error()
    return message.decode()


def eager(schema: Schema) -> Callable[..., Any]:
    """The op as a function on CPU tensors; it raises RuntimeError with the library's sentence."""

    kinds = [argument.type for argument in schema.arguments]

    def call(*args: Any) -> Any:
        results: list[torch.Tensor] = []
        bind(schema, args, results)()
        for kind, value in zip(kinds, args, strict=True):
            if kind == "Tensor!" and not value.is_inference():
                torch.autograd.graph.increment_version(value)
        return tuple(results) if len(results) > 1 else results[0] if results else None

    return call


def bind(
    schema: Schema, args: Sequence[Any], results: list[torch.Tensor] | None = None
) -> Callable[[], None]:
    """A call of the library with these arguments, prepared once; it fills the tensors that are put
    into `results`.

    Benchmarks time it alone: to prepare a call costs more than a small op takes.
    """
    results = [] if results is None else results
    function = getattr(library(), f"ingot_op_{schema.name}")
    kinds = [argument.type for argument in schema.arguments]
    arguments = list(map(_argument, kinds, args))
    outputs = [_unallocated() for _ in range(schema.outputs)]
    if outputs:
        _check(function(*arguments, *map(ctypes.byref, outputs)))
    results += [_allocate(output) for output in outputs]
    described = [ctypes.byref(_describe(result)) for result in results]

    def call(keep: object = (args, results)) -> None:
        _check(function(*arguments, *described))

    return call


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(last_error())


def _argument(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind.startswith("Tensor"):
        return ctypes.byref(_describe(value))
    if kind == "str":
        return value.encode()
    scalar = _SCALARS[kind.rstrip("?")](value)
    return ctypes.byref(scalar) if kind.endswith("?") else scalar


def _describe(tensor: torch.Tensor) -> DLTensor:
    """`tensor`'s memory as a DLTensor; it borrows, so the tensor must outlive the call."""
    if tensor.device.type != "cpu":
        raise RuntimeError(f"expected a CPU tensor, got one on {tensor.device}")
    if tensor.dtype not in _DTYPES:
        raise RuntimeError(f"the ops take no tensors of {tensor.dtype}")
    if tensor.ndim > _MAX_DIMS:
        raise RuntimeError(f"the ops take no tensors of {tensor.ndim} dimensions")
    code, bits = _DTYPES[tensor.dtype]
    dims = _DIMS[tensor.ndim]
    return DLTensor(
        data=tensor.data_ptr(),
        device_type=_CPU,
        ndim=tensor.ndim,
        code=code,
        bits=bits,
        lanes=1,
        shape=dims(*tensor.shape),
        strides=dims(*tensor.stride()),
    )


def _unallocated() -> DLTensor:
    """An output without memory: the op fills in its shape and dtype."""
    dims = _DIMS[_MAX_DIMS]
    return DLTensor(device_type=_CPU, shape=dims(), strides=dims())


def _allocate(output: DLTensor) -> torch.Tensor:
    return torch.empty(output.shape[: output.ndim], dtype=_TORCH_DTYPES[(output.code, output.bits)])

"""Eager CPU implementations: torch tensors go to libingot_ops.so.1 as DLTensor structs."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..dltensor import CPU, DIMS, DTYPES, MAX_DIMS, DLTensor, unallocated
from ..native import find
from .schema import Schema

_DTYPES = {getattr(torch, name): code_bits for name, code_bits in DTYPES.items()}
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
    outputs = [unallocated() for _ in range(schema.outputs)]
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
    if tensor.ndim > MAX_DIMS:
        raise RuntimeError(f"the ops take no tensors of {tensor.ndim} dimensions")
    code, bits = _DTYPES[tensor.dtype]
    dims = DIMS[tensor.ndim]
    return DLTensor(
        data=tensor.data_ptr(),
        device_type=CPU,
        ndim=tensor.ndim,
        code=code,
        bits=bits,
        lanes=1,
        shape=dims(*tensor.shape),
        strides=dims(*tensor.stride()),
    )


def _allocate(output: DLTensor) -> torch.Tensor:
    return torch.empty(output.shape[: output.ndim], dtype=_TORCH_DTYPES[(output.code, output.bits)])

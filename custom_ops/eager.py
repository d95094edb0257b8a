"""Eager CPU implementations: torch tensors go to libingot_ops.so.1 as DLTensor structs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .. import ops_library
from ..ops_library import DTYPES, MAX_DIMS, DLTensor, last_error, library, scalar, unallocated
from .schema import Schema

_DTYPES = {getattr(torch, name): code_bits for name, code_bits in DTYPES.items()}
_TORCH_DTYPES = {code_bits: dtype for dtype, code_bits in _DTYPES.items()}


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
    if value is None or not kind.startswith("Tensor"):
        return scalar(kind, value)
    return ctypes.byref(_describe(value))


def _describe(tensor: torch.Tensor) -> DLTensor:
    """`tensor`'s memory as a DLTensor; it borrows, so the tensor must outlive the call."""
    if tensor.device.type != "cpu":
        raise RuntimeError(f"expected a CPU tensor, got one on {tensor.device}")
    if tensor.dtype not in _DTYPES:
        raise RuntimeError(f"the ops take no tensors of {tensor.dtype}")
    if tensor.ndim > MAX_DIMS:
        raise RuntimeError(f"the ops take no tensors of {tensor.ndim} dimensions")
    return ops_library.tensor(
        tensor.data_ptr(), _DTYPES[tensor.dtype], tensor.shape, tensor.stride()
    )


def _allocate(output: DLTensor) -> torch.Tensor:
    return torch.empty(output.shape[: output.ndim], dtype=_TORCH_DTYPES[(output.code, output.bits)])

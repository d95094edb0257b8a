"""Eager implementations: torch tensors go to libingot_ops.so.1, those of a GPU to
libingot_ops_cuda.so.1, as DLTensor structs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .. import ops_library
from ..ops_library import (
    CPU,
    CUDA,
    DTYPES,
    MAX_DIMS,
    DLTensor,
    cuda_library,
    last_error,
    library,
    op_names,
    scalar,
    unallocated,
)
from .schema import Schema

_DTYPES = {getattr(torch, name): code_bits for name, code_bits in DTYPES.items()}
_DEVICE_TYPES = {"cpu": CPU, "cuda": CUDA}
_TORCH_DTYPES = {code_bits: dtype for dtype, code_bits in _DTYPES.items()}


def eager(schema: Schema) -> Callable[..., Any]:
    """The op as a function on tensors of one device; it raises RuntimeError with the library's
    sentence."""

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
    """A call of the library with these arguments, prepared once; it fills the tensors in `results`,
    which are put there if it has none. On a GPU it enqueues on the stream that is current now, and
    does not wait.

    Benchmarks time it alone: to prepare a call costs more than a small op takes.
    """
    results = [] if results is None else results
    run, arguments = _prepared(schema, args, results)

    def call(keep: object = (args, results)) -> None:
        run(*arguments)

    return call


def timed(
    schema: Schema, calls: Sequence[Sequence[Any]], results: list[torch.Tensor] | None = None
) -> Callable[[int, int], float]:
    """Times calls as a model's step makes them, from C: the interpreter takes 2 us for one, and
    twice that where the op leaves it nothing in the caches.

    The function takes the number of the first call and their count, goes through the lists of
    arguments `calls` over and over, and returns the mean seconds of a call. All fill the tensors in
    `results`, as in `bind`. On a CPU only.
    """
    results = [] if results is None else results
    prepared = [_prepared(schema, args, results)[1] for args in calls]
    addresses = [(ctypes.c_void_p * len(call))(*map(_address, call)) for call in prepared]
    table = (ctypes.c_void_p * len(calls))(*map(ctypes.addressof, addresses))
    index = op_names().index(schema.name)

    def measure(
        first: int, count: int, keep: object = (calls, results, prepared, addresses)
    ) -> float:
        seconds: float = library().ingot_ops_measure_calls(index, table, len(table), first, count)
        if seconds < 0:
            raise RuntimeError(last_error())
        return seconds

    return measure


def _prepared(
    schema: Schema, args: Sequence[Any], results: list[torch.Tensor]
) -> tuple[Callable[..., None], list[Any]]:
    """The C entry and what it takes; puts the outputs' tensors in `results` if there are none."""
    device = _device(schema, args)
    kinds = [argument.type for argument in schema.arguments]
    arguments = list(map(_argument, kinds, args))
    run = _on_gpu(schema, device) if device.type == "cuda" else _on_cpu(schema)
    if not results and schema.outputs:
        outputs = [unallocated(_place(device)) for _ in range(schema.outputs)]
        run(*arguments, *map(ctypes.byref, outputs))
        results += [_allocate(output, device) for output in outputs]
    return run, arguments + [ctypes.byref(_describe(result)) for result in results]


def _on_cpu(schema: Schema) -> Callable[..., None]:
    function = getattr(library(), f"ingot_op_{schema.name}")

    def run(*arguments: Any) -> None:
        if function(*arguments) != 0:
            raise RuntimeError(last_error())

    return run


def _on_gpu(schema: Schema, device: torch.device) -> Callable[..., None]:
    function = getattr(cuda_library(), f"ingot_cuda_op_{schema.name}")
    stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)

    def run(*arguments: Any) -> None:
        with torch.cuda.device(device):
            if function(*arguments, stream) != 0:
                raise RuntimeError(cuda_library().ingot_cuda_ops_last_error().decode())

    return run


def _device(schema: Schema, args: Sequence[Any]) -> torch.device:
    """Where all of the call's tensors are."""
    devices = dict.fromkeys(value.device for value in args if isinstance(value, torch.Tensor))
    first, *others = devices
    if others or first.type not in _DEVICE_TYPES:
        raise RuntimeError(
            f"{schema.name} takes tensors of one CPU or one GPU, not of"
            f" {' and '.join(map(str, devices))}"
        )
    return first


def _place(device: torch.device) -> tuple[int, int]:
    return _DEVICE_TYPES[device.type], device.index or 0


def _address(argument: Any) -> int | None:
    """Of what a C entry takes: where a pointer points to, else where the number is."""
    if isinstance(argument, ctypes.c_int64 | ctypes.c_double | ctypes.c_int32):
        return ctypes.addressof(argument)
    return ctypes.cast(argument, ctypes.c_void_p).value


def _argument(kind: str, value: Any) -> Any:
    if value is None or not kind.startswith("Tensor"):
        return scalar(kind, value)
    return ctypes.byref(_describe(value))


def _describe(tensor: torch.Tensor) -> DLTensor:
    """`tensor`'s memory as a DLTensor; it borrows, so the tensor must outlive the call."""
    if tensor.dtype not in _DTYPES:
        raise RuntimeError(f"the ops take no tensors of {tensor.dtype}")
    if tensor.ndim > MAX_DIMS:
        raise RuntimeError(f"the ops take no tensors of {tensor.ndim} dimensions")
    return ops_library.tensor(
        tensor.data_ptr(),
        _DTYPES[tensor.dtype],
        tensor.shape,
        tensor.stride(),
        _place(tensor.device),
    )


def _allocate(output: DLTensor, device: torch.device) -> torch.Tensor:
    dtype = _TORCH_DTYPES[(output.code, output.bits)]
    return torch.empty(output.shape[: output.ndim], dtype=dtype, device=device)

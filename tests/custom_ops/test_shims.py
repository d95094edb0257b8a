"""The generated C shims, called through the lean host as AOTInductor's code would call them."""

from __future__ import annotations

import ctypes
import functools
from ctypes import byref, c_double, c_int32, c_int64, c_void_p
from typing import Any

import pytest
import torch

from ingot import native
from ingot.custom_ops.declare import OPS
from ingot.custom_ops.schema import shim_name

SCALAR_TYPES = {torch.uint8: 0, torch.int64: 4, torch.float32: 6, torch.bfloat16: 15}
CPU = 0
CALLS = [
    pytest.param(name, index, id=f"{name}-{case.name}")
    for name, op in OPS.items()
    for index, case in enumerate(op.cases)
]


@functools.cache
def host() -> ctypes.CDLL:
    return ctypes.CDLL(str(native.find("libingot_host.so.1")))


def ok(status: int) -> None:
    assert status == 0


def handle_of(tensor: torch.Tensor) -> c_void_p:
    """A handle that borrows the tensor's memory."""
    handle, dims = c_void_p(), c_int64 * tensor.ndim
    layout = c_int64(tensor.ndim), dims(*tensor.shape), dims(*tensor.stride()), c_int64(0)
    kind = c_int32(SCALAR_TYPES[tensor.dtype]), c_int32(CPU), c_int32(0)
    data = c_void_p(tensor.data_ptr())
    ok(host().aoti_torch_create_tensor_from_blob(data, *layout, *kind, byref(handle)))
    return handle


def taken(handle: c_void_p) -> torch.Tensor:
    """A copy of the contiguous float32 tensor behind a handle, which is deleted."""
    dim, data, dtype = c_int64(), c_void_p(), c_int32()
    sizes, strides = ctypes.POINTER(c_int64)(), ctypes.POINTER(c_int64)()
    ok(host().aoti_torch_get_dim(handle, byref(dim)))
    ok(host().aoti_torch_get_sizes(handle, byref(sizes)))
    ok(host().aoti_torch_get_strides(handle, byref(strides)))
    ok(host().aoti_torch_get_dtype(handle, byref(dtype)))
    ok(host().aoti_torch_get_data_ptr(handle, byref(data)))
    assert dtype.value == SCALAR_TYPES[torch.float32]
    out = torch.empty(sizes[: dim.value])
    assert tuple(strides[: dim.value]) == out.stride()
    if out.numel() > 0:
        ctypes.memmove(out.data_ptr(), data, out.nbytes)
    ok(host().aoti_torch_delete_tensor_object(handle))
    return out


def call_shim(name: str, arguments: tuple[Any, ...]) -> tuple[int, c_void_p]:
    """The shim's status and its output handle."""
    handles = []

    def convert(kind: str, value: Any) -> Any:
        if value is None:
            return None
        if kind.startswith("Tensor"):
            handles.append(handle_of(value))
            return byref(handles[-1]) if kind == "Tensor?" else handles[-1]
        if kind == "str":
            return value.encode()
        scalar: Any = c_double(value) if kind.startswith("float") else c_int64(value)
        return byref(scalar) if kind.endswith("?") else scalar

    schema, result = OPS[name].schema, c_void_p()
    kinds = [argument.type for argument in schema.arguments]
    shim = getattr(host(), shim_name(schema))
    status = shim(*map(convert, kinds, arguments), byref(result))
    for handle in handles:
        ok(host().aoti_torch_delete_tensor_object(handle))
    return status, result


@pytest.mark.parametrize(("name", "index"), CALLS)
def test_shim_equals_the_eager_op(name: str, index: int) -> None:
    make = OPS[name].cases[index].make
    ours, theirs = (make(torch.Generator().manual_seed(20)) for _ in range(2))
    status, result = call_shim(name, ours)
    ok(status)
    assert_same(taken(result), OPS[name].overload(*theirs))
    tensors = [pair for pair in zip(ours, theirs, strict=True) if isinstance(pair[0], torch.Tensor)]
    for mine, other in tensors:
        assert_same(mine, other)


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_a_failure_is_said_and_returned(capfd: pytest.CaptureFixture[str]) -> None:
    status, result = call_shim("embedding", (torch.tensor([64]), torch.ones(1, 2, 64), 2))
    assert status == 1
    assert result.value is None
    assert capfd.readouterr().err == "ingot: embedding: tokens[0] is 64, outside [0, 64)\n"

"""libingot_ops and libingot_ops_cuda by ctypes: opening them, and what a C call of an op takes
for each argument.

Shared by those that call single ops: eager PyTorch (custom_ops/eager.py), and what runs them on
numpy's arrays without torch (runtime/ops.py). Tensors are DLPack's, as in
custom_ops/csrc/support/dltensor.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

from . import native

# DLPack's device types.
CPU, CUDA = 1, 2
MAX_DIMS = 8
# numpy's name of a dtype -> DLPack's (code, bits): code 0 int, 1 uint, 2 float, 4 bfloat, 6 bool.
DTYPES = {
    "uint8": (1, 8),
    "int8": (0, 8),
    "int16": (0, 16),
    "int32": (0, 32),
    "int64": (0, 64),
    "float16": (2, 16),
    "float32": (2, 32),
    "float64": (2, 64),
    "bfloat16": (4, 16),
    "bool": (6, 8),
}
_SCALARS: dict[str, Any] = {"int": ctypes.c_int64, "float": ctypes.c_double, "bool": ctypes.c_int32}
# Made once: to make a ctypes array type costs more than a call.
_DIMS = [ctypes.c_int64 * n for n in range(MAX_DIMS + 1)]


class DLTensor(ctypes.Structure):
    """A tensor that borrows its memory, with DLDevice and DLDataType spelled out."""

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


@cache
def library() -> ctypes.CDLL:
    """libingot_ops.so.1, opened once. Raises FileNotFoundError if it has not been built."""
    lib = ctypes.CDLL(str(native.find("libingot_ops.so.1")))
    for name in ("ingot_ops_last_error", "ingot_ops_level", "ingot_ops_name", "ingot_ops_schema"):
        getattr(lib, name).restype = ctypes.c_char_p
    lib.ingot_ops_set_level.argtypes = [ctypes.c_char_p]
    lib.ingot_ops_measure_calls.argtypes = [ctypes.c_int32, ctypes.c_void_p, *[ctypes.c_int64] * 3]
    lib.ingot_ops_measure_calls.restype = ctypes.c_double
    return lib


def op_names() -> list[str]:
    """Of libingot_ops' table, in its order."""
    lib = library()
    return [lib.ingot_ops_name(i).decode() for i in range(lib.ingot_ops_count())]


@cache
def cuda_library() -> ctypes.CDLL:
    """libingot_ops_cuda.so.1, opened once; that needs no GPU. Raises FileNotFoundError if it has
    not been built."""
    lib = ctypes.CDLL(str(native.find("libingot_ops_cuda.so.1")))
    lib.ingot_cuda_ops_last_error.restype = ctypes.c_char_p
    return lib


def last_error() -> str:
    """The sentence of this thread's last failed call into the library."""
    message: bytes = library().ingot_ops_last_error()
    return message.decode()


def scalar(kind: str, value: Any) -> Any:
    """A call's argument of the schema's type `kind`, which is no tensor: an optional number is
    passed by its address.
    """
    if value is None:
        return None
    if kind.rstrip("?") == "str":
        return str(value).encode()
    number = _SCALARS[kind.rstrip("?")](value)
    return ctypes.byref(number) if kind.endswith("?") else number


def tensor(
    data: int,
    dtype: tuple[int, int],
    shape: Sequence[int],
    strides: Sequence[int],
    device: tuple[int, int] = (CPU, 0),
) -> DLTensor:
    """Memory at the address `data`, which must outlive the call; strides in elements; device: its
    type and number."""
    dims = _DIMS[len(shape)]
    return DLTensor(
        data=data,
        device_type=device[0],
        device_id=device[1],
        ndim=len(shape),
        code=dtype[0],
        bits=dtype[1],
        lanes=1,
        shape=dims(*shape),
        strides=dims(*strides),
    )


def unallocated(device: tuple[int, int] = (CPU, 0)) -> DLTensor:
    """An output without memory: the op fills in its shape and dtype."""
    dims, (kind, number) = _DIMS[MAX_DIMS], device
    return DLTensor(device_type=kind, device_id=number, shape=dims(), strides=dims())

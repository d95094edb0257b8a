"""DLPack's tensor, as libingot_ops takes it (custom_ops/csrc/support/dltensor.h).

Shared by those that call the ops through ctypes: eager PyTorch, and `ingot replay`.
"""

from __future__ import annotations

import ctypes

CPU = 1
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
# Made once: to make a ctypes array type costs more than a call.
DIMS = [ctypes.c_int64 * n for n in range(MAX_DIMS + 1)]


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


def unallocated() -> DLTensor:
    """An output without memory: the op fills in its shape and dtype."""
    dims = DIMS[MAX_DIMS]
    return DLTensor(device_type=CPU, shape=dims(), strides=dims())

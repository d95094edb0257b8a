"""Calls of single ops without torch: numpy arrays go to libingot_ops.so.1 as DLPack's DLTensor."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .. import native
from .errors import IngotError

Array = np.ndarray[Any, Any]


class _DLTensor(ctypes.Structure):
    """Field for field custom_ops/csrc/support/dltensor.h."""

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
_CODES = {"i": 0, "u": 1, "f": 2}  # DLPack's, by numpy's kind
_BFLOAT16 = 4


@cache
def library() -> ctypes.CDLL:
    """libingot_ops. Raises IngotError if it has not been built."""
    try:
        loaded = ctypes.CDLL(str(native.find("libingot_ops.so.1")))
    except (FileNotFoundError, OSError) as error:
        raise IngotError(str(error)) from error
    loaded.ingot_ops_last_error.restype = ctypes.c_char_p
    loaded.ingot_ops_level.restype = ctypes.c_char_p
    return loaded


def level() -> str:
    """The ISA level whose kernels run. Raises IngotError where INGOT_ISA is wrong."""
    name = library().ingot_ops_level()
    if name is None:
        raise IngotError(_last_error())
    return str(name.decode())


def set_threads(count: int) -> None:
    """Of the ops that this thread calls."""
    library()  # has loaded it
    ctypes.CDLL("libgomp.so.1").omp_set_num_threads(count)


def bind(name: str, *arguments: Any, out: Array) -> Callable[[], None]:
    """A call of op `name`, prepared once: arguments in the order of its schema, then the output.

    Arrays are contiguous; uint16 ones are bfloat16. An int, float or str is that; None is None. The
    call raises IngotError with the op's sentence.
    """
    function = getattr(library(), f"ingot_op_{name}")
    held = [_argument(value) for value in (*arguments, out)]

    def call(keep: object = (arguments, out)) -> None:
        if function(*held):
            raise IngotError(f"{name}: {_last_error()}")

    return call


def _last_error() -> str:
    return str(library().ingot_ops_last_error().decode())


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ctypes.byref(_describe(value))
    if isinstance(value, str):
        return value.encode()
    kinds = {int: ctypes.c_int64, float: ctypes.c_double, type(None): lambda none: none}
    return kinds[type(value)](value)


def _describe(array: Array) -> _DLTensor:
    assert array.flags.c_contiguous
    dims = ctypes.c_int64 * array.ndim
    bfloat16 = array.dtype == np.uint16
    return _DLTensor(
        data=array.ctypes.data,
        device_type=_CPU,
        ndim=array.ndim,
        code=_BFLOAT16 if bfloat16 else _CODES[array.dtype.kind],
        bits=8 * array.itemsize,
        lanes=1,
        shape=dims(*array.shape),
        strides=dims(*(stride // array.itemsize for stride in array.strides)),
    )

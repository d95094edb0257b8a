"""Calls of single ops without torch: numpy arrays go to libingot_ops.so.1 as DLPack's DLTensor."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops_library
from ..ops_library import DTYPES, MAX_DIMS, DLTensor, last_error, scalar, tensor
from .errors import IngotError

Array = np.ndarray[Any, Any]


def library() -> ctypes.CDLL:
    """libingot_ops. Raises IngotError if it has not been built."""
    try:
        return ops_library.library()
    except OSError as error:
        raise IngotError(str(error)) from error


def level() -> str:
    """The ISA level whose kernels run. Raises IngotError where INGOT_ISA is wrong."""
    name = library().ingot_ops_level()
    if name is None:
        raise IngotError(last_error())
    return str(name.decode())


def schema(op: str) -> str | None:
    """As the library declares it; None for an op that it has not."""
    lib, names = library(), ops_library.op_names()
    return lib.ingot_ops_schema(names.index(op)).decode() if op in names else None


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
            raise IngotError(f"{name}: {last_error()}")

    return call


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)  # numpy has no bfloat16: its bits


def describe(array: Array, dtype: str) -> DLTensor:
    """`array`'s memory, which must outlive the call. Raises ValueError if it is no `dtype`."""
    if array.dtype != numpy_dtype(dtype) or array.ndim > MAX_DIMS:
        raise ValueError(f"{array.dtype} of {array.ndim} dimensions for {dtype}")
    strides = [step // array.itemsize for step in array.strides]
    return tensor(array.ctypes.data, DTYPES[dtype], array.shape, strides)


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        dtype = "bfloat16" if value.dtype == np.uint16 else value.dtype.name
        return ctypes.byref(describe(value, dtype))
    return scalar(type(value).__name__, value)

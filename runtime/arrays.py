"""Running a package by arrays: numpy (or anything with DLPack) in, numpy out."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import capi
from .errors import BadInput

if TYPE_CHECKING:
    from .package import Package

# Types of small C arrays, which ctypes would make anew in each call if nobody held them.
_HELD = [item * count for item in (ctypes.c_int64, capi.Array) for count in range(9)]
_NAMES = {number: name for name, number in capi.DTYPES.items()}


def run(package: Package, arrays: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs by name to outputs by name, as the manifest's `graph` has them."""
    if package.manifest["model"]["kind"] == "decoder":
        raise BadInput(f"{package.path} is a decoder's; make a session to generate with it")
    graph = package.manifest["graph"]
    names = [fact["name"] for fact in graph["inputs"]]
    missing, extra = [n for n in names if n not in arrays], [n for n in arrays if n not in names]
    if missing or extra:
        what = f"lacks input {missing[0]}" if missing else f"has no input {extra[0]}"
        raise BadInput(f"the call {what}; {package.path} takes {', '.join(names)}")
    held = [_input(fact, arrays[fact["name"]]) for fact in graph["inputs"]]
    shapes = [capi.int64_array(array.shape) for array in held]
    inputs = (capi.Array * len(held))(
        *(
            capi.Array(_address(array), capi.DTYPES[fact["dtype"]], array.ndim, shape)
            for fact, array, shape in zip(graph["inputs"], held, shapes, strict=True)
        )
    )
    results, library = _Results(), capi.library()
    capi.check(library.ingot_run(package.handle, inputs, len(held), ctypes.byref(results.handle)))
    return {fact["name"]: results.array(index) for index, fact in enumerate(graph["outputs"])}


class _Results:
    """What a run made: freed when the last array of it is."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()

    def __del__(self) -> None:
        capi.library().ingot_results_free(self.handle)

    def array(self, index: int) -> np.ndarray[Any, Any]:
        """A result, where it lies; bfloat16 as float32."""
        found = capi.Array()
        capi.check(capi.library().ingot_results_get(self.handle, index, ctypes.byref(found)))
        name, shape = _NAMES[found.dtype], tuple(found.shape[: found.ndim])
        stored = np.dtype("uint16" if name == "bfloat16" else name)
        if 0 in shape:
            return np.empty(shape, np.float32 if name == "bfloat16" else stored)
        array = np.asarray(_Memory(self, found.data, shape, stored.str))
        if name == "bfloat16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array


class _Memory:
    """Of a result, as numpy takes it: the array holds this, which holds the results."""

    def __init__(self, owner: _Results, data: int, shape: tuple[int, ...], dtype: str) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "data": (data, False),  # not read-only
            "shape": shape,
            "typestr": dtype,
            "version": 3,
        }


def _address(array: np.ndarray[Any, Any]) -> int:
    """array.ctypes.data, at a tenth of its cost."""
    address: int = array.__array_interface__["data"][0]
    return address


def _input(fact: Mapping[str, Any], value: Any) -> np.ndarray[Any, Any]:
    """A contiguous array of the input's dtype: integers and floats are not converted silently.

    bfloat16, which numpy lacks, is given as float32 and rounded to even.
    """
    name, dtype = fact["name"], fact["dtype"]
    if isinstance(value, np.ndarray) and value.dtype == dtype and value.flags.c_contiguous:
        return value
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        value = np.from_dlpack(value)
    try:
        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
    except ValueError as error:
        raise BadInput(f"input {name} is no array: {error}") from error
    wanted = "float32" if dtype == "bfloat16" else dtype
    if array.dtype.name != wanted:
        if isinstance(value, np.ndarray) or not np.can_cast(array.dtype, wanted, "same_kind"):
            raise BadInput(f"input {name} must be {wanted}, but is {array.dtype.name}")
        array = array.astype(wanted)  # of a plain Python list, whose numbers have no size
    return _to_bfloat16(array) if dtype == "bfloat16" else array


def _to_bfloat16(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    bits = array.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded = np.where(np.isnan(array), (bits >> 16) | 0x40, rounded)
    return np.ascontiguousarray(rounded.astype(np.uint16))

"""Running a package by arrays: numpy (or anything with DLPack) in, numpy out."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import capi
from .errors import BadInput

if TYPE_CHECKING:
    from .package import Package

# Types of small C arrays, which ctypes would make anew in each call if nobody held them.
_HELD = [item * count for item in (ctypes.c_int64, capi.Array) for count in range(9)]
# By number: the name, and how numpy writes what is stored.
_DTYPES = {
    number: (name, np.dtype("uint16" if name == "bfloat16" else name).str)
    for name, number in capi.DTYPES.items()
}


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives, read from the manifest once a package."""

    inputs: dict[str, tuple[str, int]]  # dtypes by name and number
    outputs: tuple[str, ...]

    @staticmethod
    def of(package: Package) -> Signature:
        """Raises BadInput for a decoder's."""
        if package.manifest["model"]["kind"] == "decoder":
            raise BadInput(f"{package.path} is a decoder's; make a session to generate with it")
        graph = package.manifest["graph"]
        inputs = {
            fact["name"]: (fact["dtype"], capi.DTYPES[fact["dtype"]]) for fact in graph["inputs"]
        }
        return Signature(inputs, tuple(fact["name"] for fact in graph["outputs"]))


def run(package: Package, arrays: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs by name to outputs by name, as the manifest's `graph` has them."""
    signature = package.signature
    takes = signature.inputs
    if arrays.keys() != takes.keys():
        missing = [name for name in takes if name not in arrays]
        extra = [name for name in arrays if name not in takes]
        what = f"lacks input {missing[0]}" if missing else f"has no input {extra[0]}"
        raise BadInput(f"the call {what}; {package.path} takes {', '.join(takes)}")
    held, inputs = [], []  # each of `inputs` holds its shape
    for name, (dtype, number) in takes.items():
        array = _input(name, dtype, arrays[name])
        held.append(array)
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        inputs.append(capi.Array(_address(array), number, array.ndim, shape))
    count, results, library = len(held), _Results(), capi.library()
    given = (capi.Array * count)(*inputs)
    capi.check(library.ingot_run(package.handle, given, count, ctypes.byref(results.handle)))
    return {name: results.array(index) for index, name in enumerate(signature.outputs)}


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
        (name, stored), shape = _DTYPES[found.dtype], tuple(found.shape[: found.ndim])
        if 0 in shape:
            return np.empty(shape, np.float32 if name == "bfloat16" else stored)
        array = np.asarray(_Memory(self, found.data, shape, stored))
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


def _input(name: str, dtype: str, value: Any) -> np.ndarray[Any, Any]:
    """A contiguous array of the input's dtype: integers and floats are not converted silently.

    bfloat16, which numpy lacks, is given as float32 and rounded to even.
    """
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

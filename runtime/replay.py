"""A captured op call (control `capture`, csrc/host/controls/capture.cpp), ready to run again."""

from __future__ import annotations

import ctypes
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .. import json_text
from ..ops_library import DTYPES, DLTensor, last_error, scalar, unallocated
from . import ops
from .errors import BadInput, reason

FORMAT_VERSION = 1
_WARM_UP = 3
Array = np.ndarray[Any, Any]


class Replay:
    """The call in `path`, on this machine's libingot_ops, with `threads` (0: one a core).

    Raises BadInput if the file is not a whole capture, or of an op that this library has not.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path = path
        self._arrays, call = _read(path)
        try:
            self.op, self.number = str(call["op"]), int(call["call"])
            self.level, schema = str(call["level"]), call["schema"]
            self._arguments: list[dict[str, Any]] = call["arguments"]
            self._inputs = len(self._arguments) - int(call["outputs"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{path}: its call.json lacks {error}; capture it again") from error
        if ops.schema(self.op) != schema:
            raise BadInput(f"{path} calls the op {schema}, which this Ingot has not; use its own")
        self._function = ops.library()[f"ingot_op_{self.op}"]
        if threads:
            ops.set_threads(threads)

    def verify(self) -> dict[str, Any]:
        """Run once on the captured inputs and compare what it gives and changes.

        `outputs`: of each, `bitwise` whether all bits are the same, and `max_error`, the largest
        absolute difference (infinite where only one has a number).
        """
        bound = self._bind()
        bound.run()
        return {
            "op": self.op,
            "call": self.number,
            "level": ops.level(),
            "captured_level": self.level,
            "outputs": [self._compare(name, array) for name, array in bound.results.items()],
        }

    def time(self, repeats: int) -> dict[str, float]:
        """Milliseconds of `repeats` calls on the same memory: caches are warm."""
        bound = self._bind()
        for _ in range(_WARM_UP):
            bound.run()
        spent = []
        for _ in range(repeats):
            start = time.perf_counter_ns()
            bound.run()
            spent.append((time.perf_counter_ns() - start) / 1e6)
        p10, median, p90 = np.percentile(spent, [10, 50, 90])
        return {
            "repeats": repeats,
            "median_ms": float(median),
            "p10_ms": float(p10),
            "p90_ms": float(p90),
            "min_ms": min(spent),
        }

    def _compare(self, name: str, ours: Array) -> dict[str, Any]:
        theirs = self._captured(name)
        dtype = next(a["dtype"] for a in self._arguments if a["name"] == name.partition(".")[0])
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise BadInput(
                f"{self.path}: {name} was captured as {theirs.dtype} {list(theirs.shape)}, but the"
                f" op gives {ours.dtype} {list(ours.shape)}; the file is damaged: capture it again"
            )
        return {
            "name": name,
            "dtype": dtype,
            "shape": list(ours.shape),
            "bitwise": ours.tobytes() == theirs.tobytes(),
            "max_error": _largest_difference(_values(ours, dtype), _values(theirs, dtype)),
        }

    def _captured(self, name: str) -> Array:
        if name not in self._arrays:
            raise BadInput(f"{self.path} lacks {name}; it is damaged: capture it again")
        return self._arrays[name]

    def _bind(self) -> _Bound:
        """The call with copies of its inputs."""
        bound = _Bound(self._function)
        try:
            for argument in self._arguments[: self._inputs]:
                self._add_input(bound, argument)
            for argument in self._arguments[self._inputs :]:
                bound.add_output(argument["name"], argument["dtype"])
            bound.allocate()
        except (KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
            raise BadInput(
                f"{self.path}: an argument is malformed ({error!r}); capture it again"
            ) from error
        return bound

    def _add_input(self, bound: _Bound, argument: dict[str, Any]) -> None:
        name, kind = argument["name"], argument["type"]
        if "value" in argument:
            bound.add_scalar(kind, argument["value"])
            return
        array = self._captured(name)
        if list(array.shape) != argument["shape"]:
            raise ValueError(f"{name} is {list(array.shape)}, not {argument['shape']}")
        changed = f"{name}.after" if kind == "Tensor!" else None
        bound.add_tensor(array, argument["dtype"], argument["strides"], changed)


class _Bound:
    """A C call with its arguments. `results`: what it gives and changes, by name."""

    def __init__(self, function: Any) -> None:
        self.results: dict[str, Array] = {}
        self._function = function
        self._arguments: list[Any] = []
        self._memory: list[Array] = []  # that they point to
        self._outputs: list[tuple[str, str, DLTensor]] = []

    def run(self) -> None:
        """Raises BadInput with the op's own sentence."""
        if self._function(*self._arguments) != 0:
            raise BadInput(last_error())

    def add_scalar(self, kind: str, value: Any) -> None:
        self._arguments.append(scalar(kind, value))

    def add_tensor(self, array: Array, dtype: str, strides: list[int], changed: str | None) -> None:
        placed = _with_strides(array, strides)
        self._memory.append(placed)
        self._arguments.append(ctypes.byref(ops.describe(placed, dtype)))
        if changed is not None:
            self.results[changed] = placed

    def add_output(self, name: str, dtype: str) -> None:
        self._outputs.append((name, dtype, unallocated()))
        self._arguments.append(ctypes.byref(self._outputs[-1][2]))

    def allocate(self) -> None:
        """Asks the op for the sizes of its outputs, and makes them."""
        if self._outputs:
            self.run()
        for name, dtype, asked in self._outputs:
            if (asked.code, asked.bits) != DTYPES[dtype]:
                raise ValueError(f"{name} is not {dtype}")
            array = np.empty(asked.shape[: asked.ndim], ops.numpy_dtype(dtype))
            described = ops.describe(array, dtype)
            for field, _ in DLTensor._fields_:
                setattr(asked, field, getattr(described, field))
            self.results[name] = array


def _read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    try:
        _refuse_compressed(path)
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile) or "call.json" not in file:
                raise BadInput(f"{path} is not a captured call: it has no call.json")
            call = json_text.parse(bytes(file["call.json"]))
            arrays = {name: file[name] for name in file.files if name != "call.json"}
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({reason(error)}); give the file of a captured call"
        ) from error
    # MemoryError: of an array that says it is larger than the file.
    except (ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise BadInput(
            f"{path} is not a captured call, or is damaged ({error}); capture it again"
        ) from error
    if not isinstance(call, dict) or call.get("format_version") != FORMAT_VERSION:
        raise BadInput(f"{path} has another format than this version of Ingot; capture it again")
    if call.get("part") != "call":
        raise BadInput(
            f"{path} holds what was {call.get('part')} a call, not all of it; use the control"
            " capture instead of dump"
        )
    return arrays, call


def _refuse_compressed(path: Path) -> None:
    """The control stores what it writes; compressed, a small file may hold any amount."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise BadInput(f"{path}: {entry.filename} is compressed; capture it again")


def _with_strides(array: Array, strides: list[int]) -> Array:
    """A copy that lies in memory as the captured tensor did; strides in elements."""
    if len(strides) != array.ndim or any(s < 0 for s in strides):
        raise ValueError(f"strides {strides} of {array.ndim} dimensions")
    last = sum((n - 1) * s for n, s in zip(array.shape, strides, strict=True)) if array.size else 0
    memory = np.empty(last + 1, array.dtype)
    steps = [s * array.itemsize for s in strides]
    placed = np.lib.stride_tricks.as_strided(memory, array.shape, steps)
    placed[...] = array
    return placed


def _values(array: Array, dtype: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def _largest_difference(a: Array, b: Array) -> float:
    with np.errstate(invalid="ignore"):
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max(initial=0.0))

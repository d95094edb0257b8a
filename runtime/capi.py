"""ingot.h by ctypes: structures field for field, status codes as exceptions."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_char,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
)
from functools import cache
from typing import Any

from .. import native
from .errors import BadInput, BadPackage, IngotError, NoSpace

OK, BAD_INPUT, BAD_PACKAGE, NO_SPACE, FAILED, CANCELLED = range(6)
_ERRORS = {BAD_INPUT: BadInput, BAD_PACKAGE: BadPackage, NO_SPACE: NoSpace}

TokenCallback = CFUNCTYPE(c_int32, c_int64, c_void_p)
ProgressCallback = CFUNCTYPE(None, c_uint64, c_uint64, c_void_p)


class Sized(ctypes.Structure):
    """A struct that begins with its own size, as ingot.h wants."""

    def __init__(self, **values: Any) -> None:
        """Raises BadInput for a number that its field cannot hold: ctypes would cut it silently."""
        try:
            super().__init__(struct_bytes=ctypes.sizeof(self), **values)
        except TypeError as error:
            raise BadInput(f"{error}; give numbers") from error
        for name, value in values.items():
            if isinstance(value, int) and getattr(self, name) != value:
                raise BadInput(f"{name} = {value} is out of range")


class Options(Sized):
    _fields_ = [
        ("struct_bytes", c_size_t),
        ("threads", c_int32),
        ("kv_tokens", c_int64),
        ("verify_weights", c_int32),
        ("copy_weights", c_int32),
        ("manifest_sha256", c_char_p),
        ("progress", ProgressCallback),
        ("progress_user", c_void_p),
    ]


class Sampling(Sized):
    _fields_ = [
        ("struct_bytes", c_size_t),
        ("max_new_tokens", c_int64),
        ("temperature", c_float),
        ("top_k", c_int32),
        ("top_p", c_float),
        ("seed", c_uint64),
        ("ignore_eos", c_int32),
        ("stop_tokens", POINTER(c_int64)),
        ("stop_count", c_size_t),
    ]


class Stats(Sized):
    _fields_ = [
        ("struct_bytes", c_size_t),
        ("prompt_tokens", c_int64),
        ("new_tokens", c_int64),
        ("prefill_seconds", c_double),
        ("decode_seconds", c_double),
    ]


class Array(ctypes.Structure):
    """A borrowed array; its dtype is a number of DTYPES."""

    _fields_ = [
        ("data", c_void_p),
        ("dtype", c_int32),
        ("ndim", c_int32),
        ("shape", POINTER(c_int64)),
    ]


class Control(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("variable", c_char_p),
        ("value", c_char_p),
        ("meaning", c_char_p),
    ]


DTYPES = {
    "uint8": 0,
    "int8": 1,
    "int16": 2,
    "int32": 3,
    "int64": 4,
    "float16": 5,
    "float32": 6,
    "float64": 7,
    "bool": 11,
    "bfloat16": 15,
}


def int64_array(values: Sequence[int]) -> ctypes.Array[c_int64]:
    """A C array. Raises BadInput for what is no integer of 64 bits."""
    try:
        held = array("q", values)
    except (TypeError, OverflowError) as error:
        raise BadInput(f"token ids must be integers of 64 bits: {error}") from error
    return (c_int64 * len(held)).from_buffer(held)


# name: (result, arguments)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ingot_version": (c_char_p, []),
    "ingot_last_error": (c_char_p, []),
    "ingot_package_open": (c_int32, [c_char_p, POINTER(Options), POINTER(c_void_p)]),
    "ingot_package_close": (None, [c_void_p]),
    "ingot_package_manifest": (c_char_p, [c_void_p]),
    "ingot_package_variant": (c_char_p, [c_void_p]),
    "ingot_package_entry": (
        c_int32,
        [c_void_p, c_char_p, POINTER(c_void_p), POINTER(c_size_t)],
    ),
    "ingot_package_token_bytes": (
        c_int32,
        [c_void_p, c_int64, POINTER(POINTER(c_char)), POINTER(c_size_t)],
    ),
    "ingot_read_manifest": (c_int32, [c_char_p, POINTER(c_void_p)]),
    "ingot_free": (None, [c_void_p]),
    "ingot_session_create": (c_int32, [c_void_p, POINTER(c_void_p)]),
    "ingot_session_close": (None, [c_void_p]),
    "ingot_session_reset": (None, [c_void_p]),
    "ingot_session_length": (c_int64, [c_void_p]),
    "ingot_end_openmp_team": (None, []),
    "ingot_session_generate": (
        c_int32,
        [
            c_void_p,
            POINTER(c_int64),
            c_size_t,
            POINTER(Sampling),
            TokenCallback,
            c_void_p,
            POINTER(Stats),
        ],
    ),
    "ingot_session_logits": (c_int32, [c_void_p, POINTER(c_int64), c_size_t, c_void_p]),
    "ingot_session_score": (
        c_int32,
        [c_void_p, POINTER(c_int64), c_size_t, POINTER(c_int64), c_size_t, c_void_p],
    ),
    "ingot_run": (c_int32, [c_void_p, POINTER(Array), c_size_t, POINTER(c_void_p)]),
    "ingot_results_count": (c_size_t, [c_void_p]),
    "ingot_results_get": (c_int32, [c_void_p, c_size_t, POINTER(Array)]),
    "ingot_results_free": (None, [c_void_p]),
    "ingot_embed": (
        c_int32,
        [c_void_p, POINTER(c_int64), POINTER(c_size_t), c_size_t, c_void_p],
    ),
    "ingot_trace_start": (None, []),
    "ingot_trace_write": (c_int32, [c_char_p]),
    "ingot_control_get": (c_int32, [c_size_t, POINTER(Control)]),
    "ingot_control_set": (c_int32, [c_char_p, c_char_p]),
    "ingot_controls_report": (c_int32, []),
    "ingot_gpus": (c_int32, [POINTER(c_void_p)]),
    "ingot_measure_read": (c_double, [c_void_p, c_size_t]),
    "ingot_measure_memory": (c_double, [c_void_p, c_size_t, c_int32]),
    "ingot_measure_peak": (c_double, [c_char_p, c_int32]),
}


@cache
def library() -> ctypes.CDLL:
    """libingot, loaded with local symbols. Raises IngotError if it has not been built."""
    try:
        loaded = ctypes.CDLL(str(native.find("libingot.so.1")))
    except (FileNotFoundError, OSError) as error:
        raise IngotError(str(error)) from error
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def check(status: int) -> None:
    """Raise what a status means, with the library's sentence."""
    if status not in (OK, CANCELLED):
        sentence = library().ingot_last_error().decode(errors="replace")
        raise _ERRORS.get(status, IngotError)(sentence)


def finished(status: int) -> None:
    """The same where a call that was stopped has no result. Raises IngotError."""
    check(status)
    if status == CANCELLED:
        raise IngotError(library().ingot_last_error().decode(errors="replace"))

"""What `ingot export` is pointed at: a checkpoint's folder, or a function that makes a module."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import export_checkpoint, export_module
from .errors import ExportError

_DEFAULTS = {
    "dtype": "float32",
    "kv_dtype": "auto",
    "max_seq_len": None,
    "image_size": None,
    "quant": None,
    "group_size": None,
    "activation_bits": None,
    "calib": None,
    "calib_samples": 128,
    "calib_length": None,
    "report": None,
    "format": "package",
}


def export_source(
    source: str, output: Path, *, op_library: Path | None, **options: Any
) -> dict[str, Any]:
    """Export what `source` names; `progress` is among the options. Raises ExportError."""
    file, colon, function = source.rpartition(":")
    if not colon or not file.endswith(".py"):
        if op_library is not None:
            raise ExportError("--op-library is for a module (FILE.py:FUNCTION), not a checkpoint")
        return export_checkpoint(Path(source), output, **options)
    for name, default in _DEFAULTS.items():
        if options.pop(name) != default:
            raise ExportError(f"--{name.replace('_', '-')} is for a checkpoint, not a module")
    make = _load(Path(file), function)
    try:
        made = make()
    except Exception as error:
        raise _failed(Path(file), error) from error
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise ExportError(
            f"{source} must return the module, a tuple of example inputs and, if sizes vary,"
            " dynamic_shapes"
        )
    module, args, *shapes = made
    return export_module(
        module,
        args,
        output,
        dynamic_shapes=shapes[0] if shapes else None,
        op_library=op_library,
        **options,
    )


def _load(file: Path, function: str) -> Callable[[], Any]:
    """The function of a Python file, which is run. Raises ExportError."""
    if not file.is_file():
        raise ExportError(f"no file {file}; give FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = loaded
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        raise _failed(file, error) from error
    found = getattr(loaded, function, None)
    if not callable(found):
        raise ExportError(f"{file} has no function {function}")
    return found  # type: ignore[no-any-return]


def _failed(file: Path, error: Exception) -> ExportError:
    """Names the last line of the user's own file, however deep below it the error was raised."""
    own = str(file.absolute())
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == own]
    text = str(error)
    if isinstance(error, SyntaxError) and error.filename == own:
        lines, text = [error.lineno], error.msg
    where = f"{file} line {lines[-1]}" if lines else str(file)
    return ExportError(
        f"{where}: {type(error).__name__}: {text}; mend it, or run it by itself first"
    )

"""The NVIDIA GPUs of this machine, as the runtime sees them."""

from __future__ import annotations

import ctypes
import json
from typing import Any

from . import capi


def gpus() -> dict[str, Any]:
    """`driver`, the version of CUDA that it knows, and `devices`, as `ingot_gpus` in ingot.h says.

    Raises BadPackage, with a sentence, where there is no driver or no GPU.
    """
    library, text = capi.library(), ctypes.c_void_p()
    capi.check(library.ingot_gpus(ctypes.byref(text)))
    try:
        found: dict[str, Any] = json.loads(ctypes.string_at(text.value or 0))
    finally:
        library.ingot_free(text)
    return found

"""Where the native libraries are: the one place that knows.

A wheel carries them in `ingot/_native/`; a build in the source tree writes them to `build/native/`.
INGOT_NATIVE_DIR names another folder, for tests of another build.
"""

from __future__ import annotations

import os
from pathlib import Path

_HERE = Path(__file__).resolve().parent
FOLDERS = (_HERE / "_native", _HERE / "build" / "native")


def find(name: str) -> Path:
    """Path of a native library or program, such as `libingot.so.1` or `torch/libingot_host.so.1`.

    Raises FileNotFoundError with what to run if it has not been built.
    """
    other = os.environ.get("INGOT_NATIVE_DIR")
    folders = (Path(other),) if other else FOLDERS
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    searched = " nor in ".join(str(folder) for folder in folders)
    raise FileNotFoundError(f"{name} is not in {searched}; build it with ./scripts/build")

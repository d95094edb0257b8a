"""Where the native libraries are: the one place that knows.

A wheel carries them in `ingot/_native/`; a build in the source tree writes them to `build/native/`.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent
FOLDERS = (_HERE / "_native", _HERE / "build" / "native")


def find(name: str) -> Path:
    """Path of a native library or program, such as `libingot.so.1` or `torch/libingot_host.so.1`.

    Raises FileNotFoundError with what to run if it has not been built.
    """
    for folder in FOLDERS:
        if (folder / name).exists():
            return folder / name
    searched = " nor ".join(str(folder) for folder in FOLDERS)
    raise FileNotFoundError(f"{name} is neither in {searched}; build it with ./scripts/build")

"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import ProfileError


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 beside `path`, then put it in place. Raises ProfileError, one sentence.

    What is no regular file, such as a pipe or /dev/stdout, is written in place.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    target = path if path.exists() and not path.is_file() else beside
    try:
        if target is beside:
            beside.unlink(missing_ok=True)  # of a process that was killed
        # "x": through no link that someone else put there.
        with target.open("x" if target is beside else "w", encoding="utf-8") as file:
            file.write(text)
        if target is beside:
            beside.replace(path)
    except OSError as error:
        raise ProfileError(
            f"cannot write {path}: {error.strerror}; nothing was left there"
        ) from error
    finally:
        if target is beside:
            beside.unlink(missing_ok=True)

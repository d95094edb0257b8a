"""Reads a trace file, whoever wrote it."""

from __future__ import annotations

from pathlib import Path

from .trace import Trace, from_chrome, read_json


def read_trace(path: Path) -> Trace:
    """Raises ProfileError for what is no trace."""
    return from_chrome(read_json(path), str(path))

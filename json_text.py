"""JSON out of files that anyone may have written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DEEPEST = 100  # what reads a value goes into it by recursion; honest files stay below 20


def read(path: Path) -> Any:
    """The file's value. Raises OSError, and what `parse` raises."""
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str | bytes, **options: Any) -> Any:
    """The value, by json.loads and its options.

    Raises ValueError for what is no JSON, or nested deeper than DEEPEST.
    """
    try:
        value = json.loads(text, **options)
    except RecursionError:
        value = None
    else:
        if _depth(value) <= DEEPEST:
            return value
    raise ValueError(f"it is nested more than {DEEPEST} deep")


def _depth(value: Any) -> int:
    """How many lists and objects lie in each other, counted up to DEEPEST + 1."""
    depth, level = 0, _containers([value])
    while level and depth <= DEEPEST:
        depth += 1
        level = _containers(
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        )
    return depth


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]

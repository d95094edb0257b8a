"""JSON objects with one field changed, each field in turn: what a stranger's file may hold."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

ABSENT = object()
VALUES: list[Any] = [ABSENT, None, True, 0, -1, 3, 10**9, 2**63, 10**40, 0.5, -0.5]
VALUES += [float("nan"), float("inf"), "x", "4", "", "a\nb", [], ["x"], [[1]], {}, {"x": 1}]

Place = tuple[str | int, ...]


def paths(value: Any, above: Place = ()) -> Iterator[Place]:
    """Where a value lies, of all that are inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in items:
        yield (*above, name)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*above, name))


def changed(values: dict[str, Any], path: Place, value: Any) -> dict[str, Any]:
    """A copy whose field at `path` is `value`; ABSENT: without it."""
    changed = copy.deepcopy(values)
    inner: Any = functools.reduce(lambda v, name: v[name], path[:-1], changed)
    if value is ABSENT:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


def mutated(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """With each of VALUES in each place."""
    for path in paths(values):
        for value in VALUES:
            yield changed(values, path, value)

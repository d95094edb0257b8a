"""Controls: watch or change what crosses the border between generated code and its host.

docs/controls.md describes them. The one table of them is in csrc/host/controls/table.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import capi


@dataclass(frozen=True)
class Control:
    """A row of the table. variable: of the environment; value: what it takes, in words."""

    name: str
    variable: str
    value: str
    meaning: str


def table() -> list[Control]:
    """All controls there are."""
    row = capi.Control()
    found: list[Control] = []
    while capi.library().ingot_control_get(len(found), ctypes.byref(row)) == capi.OK:
        texts = (row.name, row.variable, row.value, row.meaning)
        found.append(Control(*(text.decode() for text in texts)))
    return found


def turn_on(setting: str) -> None:
    """Turn on NAME or NAME=VALUE, for what runs from now on. Raises BadInput, with a sentence."""
    name, _, value = setting.partition("=")
    chosen = value if "=" in setting else "1"
    capi.check(capi.library().ingot_control_set(name.encode(), chosen.encode()))


def report() -> None:
    """All controls say what they found, and are off. Raises BadInput if one could not."""
    if capi.library.cache_info().currsize:
        capi.check(capi.library().ingot_controls_report())


@contextmanager
def on(settings: Iterable[str]) -> Iterator[None]:
    """These, and those that the environment asks for, while it is open."""
    for setting in settings:
        turn_on(setting)
    yield
    report()

"""What differs between the versions of torch that export works with. Nothing else asks for one.

Each difference is a function here, with what it is about; all else holds for every version.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ExportError

if TYPE_CHECKING:
    from .isa import IsaLevel

TESTED = ("2.11", "2.12", "2.13")  # pyproject.toml's range

Version = tuple[int, int]


def installed() -> str | None:
    """The installed torch's version, "2.13.0+cpu", read without importing it; None without one."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def refusal() -> str | None:
    """Why export does not work with the installed torch; None if it does."""
    version = installed()
    if version is not None and ".".join(version.split(".")[:2]) in TESTED:
        return None
    found = "it is not installed" if version is None else f"this is {version}"
    return (
        f"export works with torch {TESTED[0]} to {TESTED[-1]}, and {found}; install one of these:"
        f" pip install 'torch=={TESTED[-1]}.*'"
    )


def check() -> None:
    """Raises ExportError for a torch outside of the range."""
    if sentence := refusal():
        raise ExportError(sentence)


def _version() -> Version:
    major, minor = (installed() or TESTED[-1]).split(".")[:2]
    return int(major), int(minor)


def triton() -> str:
    """The version of triton that belongs to this torch, as its CUDA builds require it."""
    return {(2, 11): "3.6.0", (2, 12): "3.7.0"}.get(_version(), "3.7.1")


def can_target() -> bool:
    """Up to 2.12 Inductor writes -march=native; from 2.13 on `cpp.march` says another CPU."""
    return _version() >= (2, 13)


def check_levels(levels: Sequence[IsaLevel], own: IsaLevel) -> None:
    """Raises ExportError for levels that this torch cannot build for."""
    if not can_target() and any(level != own for level in levels):
        raise ExportError(
            f"torch {installed()} builds for this machine's level alone, {own.name}; to build for"
            " another take torch 2.13, or leave --isa out"
        )


def check_gpus() -> None:
    """Raises ExportError for a torch whose code for GPUs was never looked at."""
    if _version() < (2, 13):
        raise ExportError(
            f"torch {installed()} has not been tried with --device cuda; take torch 2.13"
        )


def inductor_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that this torch knows.

    2.13 brought `cpp.march`, for which `compiler_command` stands in before, and
    `aot_inductor.enable_line_tables`: debug information that was always there before.
    """
    new = ("cpp.march", "aot_inductor.enable_line_tables")
    known = _version() >= (2, 13)
    return {name: value for name, value in options.items() if known or name not in new}


def compiler_command(words: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Inductor's command line for exactly the level that `options` ask for.

    Where Inductor has no `cpp.march`, its -march=native would take all that the building CPU has.
    """
    level = options.get("cpp.march")
    return [f"-march={level}" if level and w == "-march=native" else w for w in words]

"""The `ingot` command. Bodies live where the work is done; here are options, errors and output.

Machine-readable output goes to stdout behind --json, all else that is not the result to stderr. Bad
input is one sentence and exit code 2. Nothing here imports torch but `export`.
"""

from __future__ import annotations

from . import checking, export, profiling, running  # noqa: F401  # they add their subcommands
from .base import main

__all__ = ["main"]

"""The C++ compiler that generated code goes through."""

from __future__ import annotations

import os
import subprocess
from functools import cache

from .errors import ExportError


@cache
def compiler_version() -> str:
    """First line of `g++ --version` (or $CXX's). Raises ExportError if there is no compiler."""
    compiler = os.environ.get("CXX", "g++")
    try:
        found = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ExportError(f"no C++ compiler '{compiler}'; install g++ or set CXX") from error
    return found.stdout.splitlines()[0]

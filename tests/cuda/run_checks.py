"""What scripts/gpu/packages.py finds of a package that was carried, on the tests' driver, in a
process of its own; run_package.py says what that needs.

    python -m tests.cuda.run_checks FOLDER KERNELS SHAPE RECIPE

FOLDER is the one that build/carried is in. Writes the rows as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gpu import carried, packages

from .run_package import interpreting


def main(folder: str, kernels: str, shape: str, recipe: str) -> None:
    interpreting(kernels)
    carried.ROOT = Path(folder)
    packages._NEW = 5  # the interpreter takes its time
    print(json.dumps(list(packages.rows(recipe, shape))))


if __name__ == "__main__":
    main(*sys.argv[1:])

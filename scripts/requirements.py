"""Print what pyproject.toml asks for, one requirement a line: `requirements.py [EXTRA ...]`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
wanted = list(project["dependencies"])
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
print("\n".join(w for w in wanted if not w.startswith("ingot[")))

"""Imports between the parts go one way, and what runs packages never loads torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Which parts a part may import, besides itself.
ALLOWED = {
    "custom_ops": set[str](),
    "models": {"custom_ops"},
    "quant": {"custom_ops", "models"},
    "export": {"custom_ops", "models", "quant", "profiling"},
    "runtime": {"profiling"},
    "profiling": set[str](),
}


def imported_parts(path: Path) -> set[str]:
    """Parts that a file imports: `from ..models import x`, `from .. import models`."""
    found = set()
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {name.split(".")[0] for name in names if name}
    return found & ALLOWED.keys()


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_go_one_way(part: str) -> None:
    files = list((ROOT / part).rglob("*.py"))
    assert files
    for path in files:
        forbidden = imported_parts(path) - ALLOWED[part] - {part}
        assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden}"


def test_the_check_sees_imports() -> None:
    assert imported_parts(ROOT / "export" / "compile.py") == {"custom_ops", "profiling"}


@pytest.mark.parametrize(
    "program",
    [
        "import ingot; ingot.load; ingot.Package",
        "import ingot.cli; ingot.cli.main(['--help'], standalone_mode=False)",
        "import ingot.runtime.generate_command, ingot.runtime.bench_command",
        "import ingot.runtime.inspect_command, ingot.runtime.doctor_command",
        "import ingot.runtime.eval_command, ingot.runtime.compare_command",
        "import ingot.runtime.profile_command, ingot.runtime.profile_table",
        "import ingot.runtime.onnx_backend, ingot.runtime.engines.onnx",
        "import ingot.profiling.record, ingot.profiling.trace, ingot.profiling.engine",
    ],
)
def test_no_torch(program: str) -> None:
    check = f"{program}\nimport sys\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)

"""The wheel holds the libraries just built, what export needs, and no sources of libraries."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.full


def test_wheel(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    pip += ["--disable-pip-version-check", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(pip, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {f"ingot/{path.name}" for path in ROOT.glob("*.py")} <= set(names)
    parts = ("cli", "custom_ops", "export", "models", "profiling", "quant", "runtime")
    for folder in (f"{part}/" for part in parts):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT)
            if (
                path.suffix in (".py", ".json")
                or (path.suffix == ".h" and folder == "export/")
                or path.parent.name == "templates"
            ):
                if "csrc" in inside.parts[:2]:
                    continue
                assert f"ingot/{inside}" in names
    native = [f"libingot{part}.so.1" for part in ("", "_host", "_ops")]
    for name in (*native, "torch/libingot_host.so.1", "ingot-run"):
        assert names.count(f"ingot/_native/{name}") == 1
    assert "ingot/runtime/include/ingot.h" in names
    assert not [name for name in names if name.endswith((".cpp", ".so"))]

"""Versions of torch: what one lacks is refused by a sentence, and one module knows of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ingot.export import ExportError, export_checkpoint, torch_versions
from ingot.export.isa import LEVELS, find_levels, machine_level
from tests.conftest import ROOT
from tests.test_cli import ingot


def pretend(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(torch_versions, "installed", lambda: version)


def test_the_range_is_the_projects() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (wanted,) = (line for line in extras["export"] if line.startswith("torch"))
    last = int(torch_versions.TESTED[-1].partition(".")[2])
    assert wanted == f"torch>={torch_versions.TESTED[0]},<2.{last + 1}"


@pytest.mark.parametrize("version", ["2.10.0", "2.14.0", "3.0", None])
def test_another_torch_is_refused(
    version: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, version)
    said = "it is not installed" if version is None else f"this is {version}"
    with pytest.raises(ExportError, match=f"torch 2.11 to 2.13, and {said}; install"):
        export_checkpoint(tmp_path, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", ["2.11.0+cu130", "2.12.1"])
def test_older_ones_build_for_the_machines_level_alone(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, version)
    torch_versions.check()
    own = machine_level()
    assert find_levels(None) == find_levels(own.name) == (own,)
    for level in (level for level in LEVELS if level < own):
        with pytest.raises(
            ExportError, match=f"torch {re.escape(version)} builds for this machine"
        ):
            find_levels(f"{own.name},{level.name}")
    options = {"cpp.march": "x86-64-v3", "aot_inductor.enable_line_tables": False, "a": 1}
    assert torch_versions.inductor_options(options) == {"a": 1}
    command = ["g++", "-march=native", "-O3"]
    assert torch_versions.compiler_command(command, options) == ["g++", "-march=x86-64-v3", "-O3"]


def test_no_other_module_asks_for_the_version() -> None:
    """A version may be written down (`torch.__version__` as a value), not compared."""
    asks = re.compile(
        r"(__version__|version\.cuda|TorchVersion).*[<>=!]=|[<>=!]=.*__version__"
        r"|__version__.*(split|startswith|partition)|hasattr\(\s*(torch|config\.|cpp)"
        r"|parse_version|packaging"
    )
    folders = ("custom_ops", "export", "models", "profiling", "quant", "runtime")
    files = [path for name in folders for path in sorted((ROOT / name).rglob("*.py"))]
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if asks.search(line) and path.name != "torch_versions.py"
    }
    assert found == set()
    assert asks.search("if torch.__version__ >= '2.13':")
    assert asks.search('if not hasattr(config.cpp, "march"):')


def test_doctor_says_whether_torch_is_tested() -> None:
    version = torch_versions.installed()
    assert version is not None
    assert f"torch        {version} (tested)" in ingot("doctor").stdout

"""Pages tell the truth as far as can be seen without running anything: their commands are ones that
the CLI takes, and what they point at is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

import ingot
from ingot import native
from ingot.cli import main
from ingot.profiling.record import Facts
from tests.conftest import ROOT

PAGES = sorted(
    page for folder in (".", "docs", "benchmarks") for page in ROOT.glob(f"{folder}/*.md")
)
_FENCED = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)")
_FILE = re.compile(r"`([\w./-]+/[\w.-]+\.(?:py|md|cpp|h|json))`")


def commands(text: str) -> list[str]:
    """Of lines such as "$ ingot run model.pt2   # a comment", or of a command's examples."""
    lines = (line.strip().removeprefix("$ ") for line in text.splitlines())
    return [line for line in lines if line.startswith("ingot ")]


def check(line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    try:
        main.commands[name].make_context(name, arguments)
    except click.ClickException as error:
        pytest.fail(f"{line}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page(page: Path) -> None:
    text = page.read_text()
    for block in _FENCED.findall(text):
        for line in commands(block):
            check(line)
    for link in _LINK.findall(text):
        assert "://" in link or (page.parent / link).exists(), link
    for file in _FILE.findall(text):
        part = file.partition("/")[0]
        assert not (ROOT / part).is_dir() or (ROOT / file).exists(), file


def rows(page: str, heading: str) -> set[str]:
    """What the first column of a section's table names."""
    section = (ROOT / "docs" / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    first = re.findall(r"^\|([^|]*)\|", section, re.MULTILINE)
    return {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


def test_every_field_of_a_manifest_is_described(demo_package: Path) -> None:
    assert ingot.load(demo_package).manifest.keys() <= rows("format.md", "Manifest")


def test_every_fact_of_a_record_is_described() -> None:
    assert rows("report.md", "Facts") == Facts.__annotations__.keys()


@pytest.mark.parametrize("name", main.commands)
def test_the_examples_of_a_command(name: str) -> None:
    for line in commands(main.commands[name].help or ""):
        check(line)


def test_the_program_in_c(demo_package: Path, tmp_path: Path) -> None:
    """It compiles, runs beside no more than the libraries that the page names, and writes what
    Python does."""
    page = (ROOT / "docs" / "embedding.md").read_text()
    source, program = tmp_path / "generate.c", tmp_path / "generate"
    source.write_text(page.partition("```c\n")[2].partition("```")[0])
    for name in ("libingot.so.1", "libingot_host.so.1", "libingot_ops.so.1"):
        assert name in page
        shutil.copy(native.find(name), tmp_path)
    include, libraries = f"-I{ROOT / 'runtime' / 'include'}", f"-L{tmp_path}"
    link = (libraries, "-l:libingot.so.1", "-Wl,-rpath,$ORIGIN")
    strict = ("-std=c99", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["gcc", *strict, include, source, "-o", program, *link], check=True)
    written = subprocess.check_output([program, demo_package]).decode()
    pieces = ingot.load(demo_package).generate([1, 2, 3], max_new_tokens=16, temperature=0)
    assert written == "".join(str(piece) for piece in pieces) != ""
    none = tmp_path / "none.pt2"
    refused = subprocess.run([program, none], capture_output=True, text=True)
    assert refused.returncode == 2
    assert f"cannot open {none}" in refused.stderr

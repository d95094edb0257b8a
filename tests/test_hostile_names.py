"""A package whose every name is hostile: commands show the names, on a terminal and in pages."""

from __future__ import annotations

import json
import os
import pty
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingot import native
from ingot.export.archive import ArchiveWriter
from ingot.export.tokenizer import pack_token_bytes
from tests.browser import CHROMIUM, visit

HOSTILE = '\x1b]0;owned\x07\u202e[red]</script><script>console.error("ran")</script><img src=x>'

TOKEN = b"\x1b[31m\xc2\x9b1m\xc2"  # of which the last byte begins the next character


def renamed(value: Any, names: re.Pattern[str]) -> Any:
    """`value` with the hostile text behind each string under a key that `names` matches."""
    if isinstance(value, dict):
        return {
            k: v + HOSTILE if isinstance(v, str) and names.fullmatch(k) else renamed(v, names)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [v + HOSTILE if isinstance(v, str) else renamed(v, names) for v in value]
    return value


@pytest.fixture(scope="module")
def hostile(demo_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "model.pt2"
    with zipfile.ZipFile(demo_package) as source, ArchiveWriter(path) as target:
        manifest = json.loads(source.read("model/ingot/manifest.json"))
        for name in manifest["entries"]:
            data = source.read(f"model/{name}")
            if name == "ingot/report.json":
                any_text = re.compile("name|module|stream|op|source|torch|.*_at")
                data = json.dumps(renamed(json.loads(data), any_text)).encode()
            if name == "ingot/token_bytes.bin":
                (count,) = struct.unpack_from("<I", data)
                data = pack_token_bytes([TOKEN] * count)
            target.add(name, data)
        manifest["entries"] = target.entries
        manifest["model"] = renamed(manifest["model"], re.compile("name|architecture"))
        manifest["producer"] = renamed(manifest["producer"], re.compile(".*"))
        target.add_last("ingot/manifest.json", json.dumps(manifest).encode())
    return path


def outputs(path: Path, *commands: tuple[str, ...]) -> Iterator[str]:
    for command in commands:
        made = subprocess.run(
            [sys.executable, "-m", "ingot", command[0], str(path), *command[1:]],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert made.returncode == 0, made.stderr
        yield made.stdout + made.stderr


def test_on_a_terminal(hostile: Path) -> None:
    for shown in outputs(hostile, ("inspect",), ("report",), ("verify",)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_in_a_page(hostile: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    list(outputs(hostile, ("report", "-o", str(page))))
    assert HOSTILE not in page.read_text()
    seen = visit(page, "document.images.length", "document.body.textContent.includes('owned')")
    assert seen.messages == []
    assert seen.requests == []
    assert seen.values == [0, True]


@pytest.mark.parametrize(
    "program",
    [[sys.executable, "-m", "ingot", "run"], [str(native.find("ingot-run"))]],
    ids=["python", "cpp"],
)
def test_what_a_model_writes(hostile: Path, program: list[str]) -> None:
    command = [*program, str(hostile), "--tokens", "1,2", "--max-new-tokens", "3", "--ignore-eos"]
    piped = subprocess.run(command, capture_output=True, timeout=60)
    assert piped.stdout.count(b"\x1b[31m") == 3
    ours, theirs = pty.openpty()
    subprocess.run(command, stdout=theirs, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 4096)
    os.close(ours)
    assert shown.count(b"\\x1b[31m\\x9b1m") == 3
    assert b"\x1b" not in shown
    assert "\x9b" not in shown.decode(errors="replace")

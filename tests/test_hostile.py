"""Bad input at the command line and from Python: one line and exit code 2, from both programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import ingot
from ingot import native
from ingot.runtime import BadInput, BadPackage, NoSpace

Command = Sequence[str | bytes | Path]


def refused(command: Command, **environment: str) -> str:
    """The one line with which a command ends, its exit code being 2."""
    found = subprocess.run(
        command, capture_output=True, env={**os.environ, **environment}, timeout=60
    )
    sentence = found.stderr.decode()
    assert (found.returncode, sentence.count("\n")) == (2, 1), sentence
    assert sentence.startswith("ingot: ")
    assert found.stdout == b""
    return sentence


@pytest.fixture(params=["ingot-run", "ingot run"])
def program(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "ingot-run":
        return [str(native.find("ingot-run"))]
    return [sys.executable, "-m", "ingot", "run"]


def test_options_of_nonsense(program: list[str], demo_package: Path) -> None:
    cases: list[tuple[str, tuple[str, ...]]] = [
        ("--tokens", ("--tokens", "")),
        ("--tokens", ("--tokens", "one")),
        ("token id -1 is out of range", ("--tokens", "-1")),
        ("token id", ("--tokens", "9" * 30)),
        ("max_new_tokens must be at least 1", ("--tokens", "1", "--max-new-tokens", "0")),
        ("too long", ("--tokens", "1", "--max-new-tokens", str(2**63 - 1))),
        ("temperature", ("--tokens", "1", "--temperature", "nan")),
        ("top", ("--tokens", "1", "--top-p", "nan")),
        ("top", ("--tokens", "1", "--top-k", "-1")),
        ("seed", ("--tokens", "1", "--seed", "-1")),
        ("threads must be 0 to 1024", ("--tokens", "1", "--threads", "-1")),
        ("threads must be 0 to 1024", ("--tokens", "1", "--threads", "100000")),
        ("no control 'nonsense'", ("--tokens", "1", "--control", "nonsense")),
        ("--nonsense", ("--nonsense",)),
        ("--tokens", ()),
    ]
    if program[-1] == "run":  # a second of Python each: what the library says, the other shows
        cases = [case for case in cases if "1" not in case[1]] + cases[7:8]
    for sentence, options in cases:
        assert sentence in refused([*program, demo_package, *options]), options


def test_environments_of_nonsense(program: list[str], demo_package: Path) -> None:
    command = [*program, demo_package, "--tokens", "1", "--max-new-tokens", "1"]
    assert '"avx9" is no ISA level' in refused(command, INGOT_ISA="avx9")
    if program[-1] == "run":
        assert "libingot.so.1 is not in /nowhere" in refused(command, INGOT_NATIVE_DIR="/nowhere")
    for threads in ("0", "-1", "many"):  # OpenMP's own, which says so itself
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "TMPDIR": "/nowhere"}
        found = subprocess.run(command, capture_output=True, env=environment, timeout=60)
        assert found.returncode == 0, found.stderr


def test_prompts_that_are_none(demo_package: Path) -> None:
    command = [sys.executable, "-m", "ingot", "run", str(demo_package)]
    assert "the prompt is empty" in refused([*command, "--prompt", ""])
    assert "not valid UTF-8" in refused([*command, "--prompt", b"\xff\xfe"])
    with pytest.raises(BadInput, match="the prompt is empty"):
        list(ingot.load(demo_package).generate([]))


def test_files_of_ids(demo_package: Path, tmp_path: Path) -> None:
    file = tmp_path / "ids"
    command = [str(native.find("ingot-run")), demo_package, "--tokens-file"]
    assert "cannot read" in refused([*command, tmp_path / "none"])
    assert "cannot read" in refused([*command, tmp_path])
    for text, sentence in (
        (b"", "has no token ids"),
        (b" ,\n", "has no token ids"),
        (b"1 two", "'two' is not a token id"),
        (b"9" * 30, "is not a token id"),
        (b"\x00\x01", "is not a token id"),
    ):
        file.write_bytes(text)
        assert sentence in refused([*command, file])


def test_texts_that_are_empty(demo_package: Path, tmp_path: Path) -> None:
    file = tmp_path / "empty.txt"
    file.touch()
    command = [sys.executable, "-m", "ingot"]
    assert "empty.txt is empty" in refused([*command, "eval", demo_package, "--text", file])
    unreadable = f"{tmp_path} cannot be read (Is a directory); give a file of UTF-8 text"
    assert unreadable in refused([*command, "eval", demo_package, "--text", tmp_path])
    assert unreadable in refused([*command, "embed", demo_package, "--file", tmp_path])
    assert "give --text TEXT" in refused([*command, "embed", demo_package, "--file", file])


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "ingot", "inspect"],
        [sys.executable, "-m", "ingot", "run", "--prompt", "a"],
        [native.find("ingot-run"), "--tokens", "1"],
        [native.find("ingot-run"), "--tokens", "1", "--json"],
    ],
    ids=["inspect", "run", "ingot-run", "ingot-run --json"],
)
def test_output_to_a_full_disk(command: Command, demo_package: Path) -> None:
    with open("/dev/full", "wb") as full:
        found = subprocess.run([*command, demo_package], stdout=full, stderr=subprocess.PIPE)
    assert found.returncode == 2
    assert found.stderr.startswith(b"ingot: cannot write the output")
    assert found.stderr.count(b"\n") == 1


def test_usage(demo_package: Path) -> None:
    command = [sys.executable, "-m", "ingot"]
    assert "No such command 'exprot'" in refused([*command, "exprot"])
    assert "Missing argument 'PACKAGE'" in refused([*command, "run"])
    assert "Invalid value for '--top-k'" in refused([*command, "run", demo_package, "--top-k", "x"])


def test_a_full_kv_cache(demo_package: Path) -> None:
    package = ingot.load(demo_package, kv_tokens=32)
    with package.session() as session:
        with pytest.raises(NoSpace, match="the KV cache is full: it holds 32 tokens"):
            list(session.generate([1], max_new_tokens=100))
        assert len([p for p in session.generate([1], max_new_tokens=8) if p.token >= 0]) <= 8


def test_an_abandoned_generator_leaves_its_session_usable(demo_package: Path) -> None:
    package = ingot.load(demo_package)
    session = package.session()
    pieces = session.generate([1], max_new_tokens=900, ignore_eos=True)
    next(pieces)
    del pieces
    again = session.generate([2], max_new_tokens=2, ignore_eos=True)
    assert len([piece for piece in again if piece.token >= 0]) == 2

    def fail(piece: ingot.runtime.Piece) -> None:
        raise RuntimeError("the reader's own")

    with pytest.raises(RuntimeError, match="the reader's own"):
        list(map(fail, session.generate([1], max_new_tokens=500, ignore_eos=True)))
    assert session.logits([1]).shape == (1, 4096)
    session.close()
    session.close()


def test_weights_are_hashed_when_asked(demo_package: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pt2"
    data = bytearray(demo_package.read_bytes())
    weights = ingot.load(demo_package).entry("ingot/weights.bin")
    data[data.index(weights[:4096]) + 1000] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(BadPackage, match=r"ingot/weights.bin does not have the hash"):
        ingot.load(damaged, verify=True)
    assert np.isfinite(ingot.load(damaged).session().logits([1])).all()

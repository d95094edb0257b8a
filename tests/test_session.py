"""Sessions from Python: their ends, what they refuse, and that capi.py is ingot.h."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ingot
from ingot import native
from ingot.runtime import BadInput, capi
from tests.conftest import ROOT, tokens


@pytest.fixture
def package(demo_package: Path) -> ingot.Package:
    return ingot.load(demo_package)


def test_closing_a_session_ends_its_generation(package: ingot.Package) -> None:
    session = package.session()
    pieces = session.generate([1], max_new_tokens=900, ignore_eos=True)
    first = next(pieces).token
    session.close()
    rest = tokens(pieces)  # those made before it was closed
    assert len(rest) < 899
    again = package.generate([1], max_new_tokens=len(rest) + 1, ignore_eos=True)
    assert tokens(again) == [first, *rest]


def test_a_closed_session_refuses(package: ingot.Package) -> None:
    session = package.session()
    session.close()
    session.close()
    for call in (
        lambda: list(session.generate([1])),
        lambda: session.logits([1]),
        lambda: session.score([1], [2]),
        lambda: session.length,
        session.reset,
    ):
        with pytest.raises(BadInput, match="the session is closed"):
            call()


def test_a_busy_session_refuses(package: ingot.Package) -> None:
    with package.session() as session:
        pieces = session.generate([1], max_new_tokens=900, ignore_eos=True)
        next(pieces)
        with pytest.raises(BadInput, match="the session is busy"):
            session.logits([1])
        with pytest.raises(BadInput, match="the session is busy"):
            list(session.generate([1]))


@pytest.mark.parametrize("left", ["pieces", "session", "neither"])
def test_a_process_may_end_while_it_generates(demo_package: Path, left: str) -> None:
    program = f"""
import ingot
session = ingot.load({str(demo_package)!r}).session()
pieces = session.generate([1], max_new_tokens=900, ignore_eos=True)
next(pieces)
left = {left!r}
if left != "pieces": del pieces
if left != "session": del session
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("prompt", "options", "sentence"),
    [
        ([2**64 + 1], {}, "token ids must be integers of 64 bits"),
        ([1.5], {}, "token ids must be integers of 64 bits"),
        (["a"], {}, "token ids must be integers of 64 bits"),
        ("\udcff", {}, "not valid UTF-8"),
        ([1], {"seed": -1}, "seed = -1 is out of range"),
        ([1], {"max_new_tokens": 2**64 + 1}, "max_new_tokens = 18446744073709551617 is out"),
        ([1], {"max_new_tokens": "8"}, "give numbers"),
        ([1], {"top_k": 2**40}, "top_k = 1099511627776 is out of range"),
        ([1], {"stop_tokens": [2**63]}, "integers of 64 bits"),
        ([1], {"temperature": float("nan")}, "temperature must not be negative"),
        ([1], {"top_p": 0.0}, "top_p must be in"),
    ],
)
def test_bad_arguments(
    package: ingot.Package, prompt: Any, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        list(package.generate(prompt, **options))


def test_integers_of_numpy_are_tokens(package: ingot.Package) -> None:
    import numpy as np

    plain = tokens(package.generate([1, 2, 3], max_new_tokens=4))
    assert tokens(package.generate(np.array([1, 2, 3]), max_new_tokens=4)) == plain  # type: ignore[arg-type]


def test_the_callers_openmp_team_ends(package: ingot.Package) -> None:
    """Beside it, steps would have more threads than cores: see ingot_end_openmp_team."""

    def threads() -> set[str]:
        return set(os.listdir("/proc/self/task"))

    list(package.generate([1, 2, 3], max_new_tokens=1))
    openmp, before = ctypes.CDLL("libgomp.so.1"), threads()
    body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
    openmp.GOMP_parallel(body, None, 3, 0)
    team = threads() - before
    assert team
    list(package.generate([1, 2, 3], max_new_tokens=1))
    for _ in range(1000):  # a thread that has ended is listed for a moment longer
        if not team & threads():
            break
        time.sleep(0.005)
    assert not team & threads()


def test_a_slow_reader_gets_every_token(package: ingot.Package) -> None:
    """The library runs ahead of the reader; nothing is lost, and text comes in order."""
    whole = list(package.generate("import ", max_new_tokens=300, ignore_eos=True))
    slow = []
    for piece in package.generate("import ", max_new_tokens=300, ignore_eos=True):
        slow.append(piece)
        list(package.generate([1], max_new_tokens=1))
    assert slow == whole
    assert len(tokens(slow)) == 300


def test_the_structures_are_those_of_the_header(tmp_path: Path) -> None:
    structures = {
        "ingot_options": capi.Options,
        "ingot_sampling": capi.Sampling,
        "ingot_stats": capi.Stats,
    }
    lines = []
    for name, structure in structures.items():
        for field, *_ in structure._fields_:
            lines.append(f'printf("%zu ", offsetof({name}, {field}));')
        lines.append(f'printf("%zu ", sizeof({name}));')
    source = tmp_path / "layout.c"
    body = "\n".join(lines)
    source.write_text(f'#include <stdio.h>\n#include "ingot.h"\nint main(void) {{\n{body}\n}}\n')
    program = tmp_path / "layout"
    include = ROOT / "runtime" / "include"
    subprocess.run(["gcc", "-std=c99", "-I", include, source, "-o", program], check=True)
    theirs = [int(word) for word in subprocess.check_output([program]).split()]
    ours = []
    for structure in structures.values():
        ours += [getattr(structure, field).offset for field, *_ in structure._fields_]
        ours.append(ctypes.sizeof(structure))
    assert ours == theirs


def test_little_memory_beyond_the_weights(demo_package: Path) -> None:
    """At most 40 MB, with the KV cache of 80 tokens and (Python) the interpreter in it."""
    weights = ingot.load(demo_package).manifest["entries"]["ingot/weights.bin"]["bytes"] / 2**20
    options = (str(demo_package), "--tokens", "1,2,3", "--max-new-tokens", "77", "--json")
    for program in ([str(native.find("ingot-run"))], [sys.executable, "-m", "ingot", "run"]):
        found = json.loads(subprocess.check_output([*program, *options]))
        assert 0 < found["peak_rss_mb"] - weights <= 40, program

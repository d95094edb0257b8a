"""The compiler's command line, which Inductor writes as one string, and when it is written."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from ingot.export import build
from ingot.export.build import _command
from ingot.profiling.record import Recorder


@pytest.mark.parametrize("name", ["a folder", "it's", 'a"b', "$(id)", "-x", "a\nb", "Grüße"])
def test_paths_stay_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_VEC_ISA_OK", "1")
    folder = tmp_path / name
    folder.mkdir()
    source = str(folder / "model.cpp")
    command, output = _command({}, [source], folder / "model", small=True, compile_only=True)
    assert output == folder / "model.o"
    assert source in command
    assert command[command.index("-o") + 1] == str(output)


def test_options_are_read_where_they_were_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor's are the process's: a thread of the pool would find others, or another's."""
    asked = list[int]()

    def command(*arguments: Any, **named: Any) -> Any:
        asked.append(threading.get_ident())
        return _command(*arguments, **named)

    monkeypatch.setenv("TORCHINDUCTOR_VEC_ISA_OK", "1")
    monkeypatch.setattr(build, "_command", command)
    monkeypatch.setattr(build.CppBuild, "_run", lambda *_: None)
    monkeypatch.setattr(build.CppBuild, "_once", lambda *_: Path())
    with build.CppBuild({}, Recorder("compile")) as made:
        made.add_functions("some", {}, "")
        wait([*made._headers.values(), *made._jobs.values()])
    assert asked == [threading.get_ident()] * 5

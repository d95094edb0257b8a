"""The compiler's command line, which Inductor writes as one string."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.export.build import _command


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

"""Every JSON that ingot reads may be nested so deep that reading it by recursion ends the process:
it is refused in a sentence that names it, and so is what a parser takes and its reader may not."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ingot import json_text, models, quant
from ingot.cli import main
from ingot.export import ExportError, tokenizer
from ingot.export.archive import ArchiveWriter
from ingot.models import checkpoint
from ingot.profiling.errors import ProfileError
from ingot.profiling.trace import read_json
from ingot.quant.calibration import Calibration
from ingot.runtime import BadInput
from ingot.runtime.eval_command import read_texts

INDEX = "model.safetensors.index.json"


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def line(path: Path) -> Any:
    """As each line of a .jsonl file is: its text nested."""
    path.write_text('{"text": ' + path.read_text() + "}")
    return path.rename(path.with_suffix(".jsonl"))


def index(path: Path) -> Any:
    """As the list of a checkpoint's shards."""
    return checkpoint.tensor_files(path.rename(path.parent / INDEX).parent)


READERS: dict[str, tuple[Callable[[Path], Any], type[Exception]]] = {
    "config.json": (checkpoint.read_json, models.CheckpointError),
    "index": (index, models.CheckpointError),
    "generation_config.json": (lambda p: tokenizer.read_json(p, {}), ExportError),
    "tokenizer.json": (lambda p: tokenizer.token_bytes(p.read_bytes(), 8), ExportError),
    "recipe": (lambda p: quant.find(str(p)), models.CheckpointError),
    "calibration": (lambda p: list(Calibration(line(p))._texts()), models.CheckpointError),
    "eval": (lambda p: read_texts(line(p)), BadInput),
    "trace": (read_json, ProfileError),
}


@pytest.mark.parametrize("depth", [json_text.DEEPEST + 1, 990, 100_000])
@pytest.mark.parametrize(("read", "error"), READERS.values(), ids=READERS)
def test_readers(
    read: Callable[[Path], Any], error: type[Exception], depth: int, tmp_path: Path
) -> None:
    path = tmp_path / "deep.json"
    path.write_text(nested(depth))
    with pytest.raises(error, match=r"deep.json|safetensors.index.json|tokenizer.json") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_what_is_not_too_deep_is_read() -> None:
    value = json_text.parse(nested(json_text.DEEPEST))
    assert json.dumps(value) == nested(json_text.DEEPEST)
    assert json_text.parse('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for text in (nested(json_text.DEEPEST + 1), '{"a": ' * 200 + "1" + "}" * 200):
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            json_text.parse(text)


def with_record(package: Path, record: str, path: Path) -> Path:
    """A package that says that this is its compile record, whose hash no load looks at."""
    with zipfile.ZipFile(package) as source, ArchiveWriter(path) as copy:
        entries = {name.removeprefix("model/"): source.read(name) for name in source.namelist()}
        manifest = entries.pop("ingot/manifest.json")
        for name, data in entries.items():
            if name not in ("archive_format", "byteorder"):
                copy.add(name, record.encode() if name == "ingot/report.json" else data)
        copy.add_last("ingot/manifest.json", manifest)
    return path


@pytest.mark.parametrize("record", [nested(100_000), "[]", "{", '{"facts": []}'])
def test_compile_records(demo_package: Path, record: str, tmp_path: Path) -> None:
    path = with_record(demo_package, record, tmp_path / "model.pt2")
    assert "model.pt2" in refused("inspect", path)
    assert "model.pt2" in refused("report", path)
    assert "model.pt2" in refused("analyze", path, "--hardware", "h100")
    assert "model.pt2" in refused("profile", path, "--tokens", "1", "--repeats", 1)


def refused(*arguments: object) -> str:
    """The sentence with which a command ends, its exit code being 2."""
    found = CliRunner().invoke(main, [*map(str, arguments)])
    assert found.exit_code == 2, found.output
    *phases, sentence = found.stderr.splitlines()
    assert all(phase.endswith(" ...") for phase in phases)
    assert sentence.startswith("ingot: ")
    return sentence


def test_the_commands(demo_checkpoint: Path, demo_package: Path, tmp_path: Path) -> None:
    deep, lines = tmp_path / "deep.json", tmp_path / "deep.jsonl"
    for file in (deep, lines):
        file.write_text(nested(100_000))
    copied, output = tmp_path / "checkpoint", tmp_path / "model.pt2"
    shutil.copytree(demo_checkpoint, copied)
    (copied / "generation_config.json").write_text(nested(100_000))
    assert "generation_config.json" in refused("export", copied, "-o", output)
    assert "deep.json" in refused("export", demo_checkpoint, "-o", output, "--quant", deep)
    assert "deep.jsonl" in refused(
        *("export", demo_checkpoint, "-o", output, "--quant", "awq", "--calib", lines)
    )
    assert "deep.jsonl" in refused("eval", demo_package, "--text", lines)
    assert not output.exists()

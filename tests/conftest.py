"""Fixtures shared by all tests: packages are exported once a session, by their configuration."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

# Threads that wait sleep, here and in child processes: where other work runs beside, those that
# spin take the time of those that compute, and a reference takes ten times as long. OpenMP reads
# this when it is loaded: before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def demo_checkpoint() -> Path:
    return ROOT / "demo" / "checkpoint"


@pytest.fixture(scope="session")
def demo_package(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as a float32 package."""
    from ingot.export import export_checkpoint

    output = tmp_path_factory.mktemp("demo") / "demo.pt2"
    export_checkpoint(demo_checkpoint, output)
    return output


def manifest_of(package: Path) -> dict[str, Any]:
    """As it is written, without loading the package."""
    with zipfile.ZipFile(package) as archive:
        return json.loads(archive.read("model/ingot/manifest.json"))  # type: ignore[no-any-return]


def tokens(pieces: Iterable[Any]) -> list[int]:
    """Of a generation, without the piece that ends the text."""
    return [piece.token for piece in pieces if piece.token >= 0]


ExportPackage = Callable[..., Path]


@pytest.fixture(scope="session")
def export_package(tmp_path_factory: pytest.TempPathFactory) -> ExportPackage:
    """`export_package(kind, dtype=..., **config) -> package`, exported once for each configuration.

    The checkpoint it was made from, random weights and all, is the folder `checkpoint` beside the
    package.
    """
    from ingot.export import export_checkpoint
    from tests.checkpoints import ENCODERS, make_checkpoint, make_encoder

    made: dict[str, Path] = {}

    def export(kind: str = "Llama", dtype: str = "float32", **config: Any) -> Path:
        key = repr((kind, dtype, sorted(config.items(), key=str)))
        if key not in made:
            folder = tmp_path_factory.mktemp("package")
            make = make_encoder if kind in ENCODERS else make_checkpoint
            checkpoint = make(folder / "checkpoint", kind, **config)
            export_checkpoint(checkpoint, folder / "model.pt2", dtype=dtype)
            made[key] = folder / "model.pt2"
        return made[key]

    return export

"""ONNX models of small random checkpoints, exported once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingot.export import export_checkpoint
from tests.checkpoints import make_checkpoint
from tests.families import FAMILIES

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {"llama": ("Llama", {}), **FAMILIES}
ExportOnnx = Callable[..., Path]


@pytest.fixture(scope="session")
def export_onnx(tmp_path_factory: pytest.TempPathFactory) -> ExportOnnx:
    """`export_onnx(name, **options) -> model.onnx`; its checkpoint lies beside it."""
    made: dict[str, Path] = {}

    def export(name: str, **options: Any) -> Path:
        key = repr((name, options))
        if key not in made:
            kind, config = CONFIGS[name]
            folder = tmp_path_factory.mktemp("onnx")
            made[key] = folder / "model.onnx"
            checkpoint = make_checkpoint(folder / "checkpoint", kind, **config)
            export_checkpoint(checkpoint, made[key], format="onnx", **options)
        return made[key]

    return export


@pytest.fixture(scope="session")
def llama(export_onnx: ExportOnnx) -> Path:
    return export_onnx("llama")

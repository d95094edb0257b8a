"""A package and a key pair."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.signing.packages import Keys, write_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "model.pt2")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path, "key")

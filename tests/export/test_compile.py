"""What is compiled: vectorised for its level, linked to our host alone, cached by shape."""

from __future__ import annotations

import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ingot.export import cache, export_checkpoint
from tests.checkpoints import make_llama
from tests.conftest import manifest_of

WIDE = {"x86-64-v3": "Sleef_cosf8", "x86-64-v4": "Sleef_cosf16"}


def code_of(package: Path, folder: Path) -> Path:
    (variant,) = manifest_of(package)["variants"]
    with zipfile.ZipFile(package) as archive:
        path = folder / "model.so"
        path.write_bytes(archive.read(f"model/{variant['entry']}"))
    return path


def dynamic(path: Path) -> str:
    command = ["readelf", "--dynamic", "--wide", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_object_needs_our_host_and_nothing_of_torch(demo_package: Path, tmp_path: Path) -> None:
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic(code_of(demo_package, tmp_path)))
    assert "libingot_host.so.1" in needed
    assert not [name for name in needed if "torch" in name or "c10" in name]
    assert manifest_of(demo_package)["variants"][0]["requires"] == []


def test_generated_kernels_are_vectorised(demo_package: Path, tmp_path: Path) -> None:
    """Inductor falls back to scalar code in silence when its probe of the machine fails."""
    (variant,) = manifest_of(demo_package)["variants"]
    if variant["isa"] not in WIDE:
        pytest.skip("x86-64-v2 has no vectors that Inductor uses")
    symbols = subprocess.run(
        ["nm", "--dynamic", str(code_of(demo_package, tmp_path))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert WIDE[variant["isa"]] in symbols


def test_the_same_shape_is_compiled_once(
    export_package: Callable[..., Path], tmp_path: Path
) -> None:
    config = {"num_key_value_heads": 3, "num_attention_heads": 6, "head_dim": 128}
    config |= {"tie_word_embeddings": True}
    rope = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    export_package(**config, rope_parameters=rope)
    other = make_llama(tmp_path / "other", seed=1, **config, rope_parameters=rope)
    record = export_checkpoint(other, tmp_path / "other.pt2")
    assert [v["cache_hit"] for v in record["facts"]["variants"].values()] == [True]
    assert "capture" not in [event["name"] for event in record["events"]]


def test_the_fingerprint_is_of_the_graph_not_of_the_weights(tmp_path: Path) -> None:
    from ingot import models
    from ingot.export import contracts
    from ingot.export.isa import LEVELS

    def key(seed: int = 0, level: int = 1, **config: object) -> str:
        folder = make_llama(tmp_path / str(len(list(tmp_path.iterdir()))), seed=seed, **config)
        contract = contracts.of_checkpoint(models.load(folder), folder)
        return cache.fingerprint(contract, LEVELS[level], {})

    assert key() == key(seed=1)
    others = (key(vocab_size=301), key(level=2), key(rms_norm_eps=1e-3), key(attention_bias=True))
    assert len({key(), *others}) == 5


def test_a_failed_export_leaves_the_old_package(tmp_path: Path, monkeypatch) -> None:
    output = tmp_path / "model.pt2"
    output.write_bytes(b"old")
    checkpoint = make_llama(tmp_path / "checkpoint")
    monkeypatch.setattr("ingot.export.cache.find", lambda key: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_checkpoint(checkpoint, output)
    assert output.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt2", "checkpoint"}

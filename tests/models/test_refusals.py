"""What cannot be loaded is refused in a sentence that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ingot import models
from tests.checkpoints import make_llama

Edit = Callable[[Path], None]


def field(name: str, value: object) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return edit


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Edit:
    def edit(folder: Path) -> None:
        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors")

    return edit


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


Q = "model.layers.1.self_attn.q_proj.weight"
CASES: dict[str, tuple[Edit, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config.json is missing"),
    "not json": (lambda f: (f / "config.json").write_text("{"), r"cannot be read"),
    "unknown architecture": (field("architectures", ["Foo"]), r"architecture 'Foo' is not known"),
    "unknown field": (field("logit_scale", 0.5), r"field 'logit_scale' = 0.5 is not understood"),
    "other activation": (field("hidden_act", "relu"), r"hidden_act 'relu' is not supported"),
    "other rope": (field("rope_parameters", {"rope_type": "dynamic"}), r"type 'dynamic'"),
    "lying heads": (field("num_key_value_heads", 3), r"cannot share 3"),
    "lying sizes": (
        field("intermediate_size", 161),
        r"is \(160, 96\), config.json wants \(161, 96",
    ),
    "negative size": (field("vocab_size", -5), r"vocab_size is -5"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model.safetensors is missing"),
    "truncated": (truncate, r"is damaged or cut short"),
    "missing tensor": (tensors(lambda t: t.pop(Q)), rf"lacks {Q}"),
    "extra tensor": (tensors(lambda t: t.update(extra=torch.ones(3))), r"has extra too many"),
    "integer tensor": (tensors(lambda t: t.update({Q: t[Q].to(torch.int8)})), rf"{Q} is int8"),
}


@pytest.mark.parametrize(("edit", "sentence"), CASES.values(), ids=CASES)
def test_refusals(tmp_path: Path, edit: Edit, sentence: str) -> None:
    folder = make_llama(tmp_path / "model")
    edit(folder)
    with pytest.raises(models.CheckpointError, match=sentence) as caught:
        models.load(folder)
    assert "\n" not in str(caught.value)


def test_missing_shard(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "model", max_shard_size="100KB")
    sorted(folder.glob("*.safetensors"))[1].unlink()
    with pytest.raises(models.CheckpointError, match=r"model-00002.* is missing"):
        models.load(folder)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(models.CheckpointError, match="no checkpoint folder"):
        models.load(tmp_path / "nothing")


def test_max_seq_len_beyond_the_model(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "model")
    with pytest.raises(models.CheckpointError, match="--max-seq-len 513 is not in 1 to 512"):
        models.load(folder, max_seq_len=513)

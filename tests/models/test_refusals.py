"""What cannot be loaded is refused in a sentence that names it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def header(change: Callable[[dict[str, Any]], object]) -> Edit:
    """Changes the JSON that a safetensors file begins with, and not its data."""

    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        stated = json.loads(data[8:end])
        change(stated)
        text = json.dumps(stated).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])

    return edit


def renamed(name: str) -> Edit:
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


def written(name: str, text: str) -> Edit:
    return lambda folder: (folder / name).write_text(text)


def index(*files: object) -> Edit:
    """An index that says that the first tensor lies in the first of the files, and so on."""

    def edit(folder: Path) -> None:
        names = load_file(folder / "model.safetensors")
        weight_map = dict(zip(names, itertools.cycle(files), strict=False))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return edit


Q = "model.layers.1.self_attn.q_proj.weight"
N, FIRST = "model.norm.weight", "model.layers.0.input_layernorm.weight"
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
    "empty file": (written("model.safetensors", ""), r"safetensors is damaged or cut short"),
    "large-file pointer": (
        written("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
        r"safetensors is damaged or cut short",
    ),
    "a tensor over another": (
        header(lambda h: h[N].update(data_offsets=h[FIRST]["data_offsets"])),
        r"damaged .* invalid offset for tensor `model",
    ),
    "a tensor beyond the end": (
        header(lambda h: h[N].update(data_offsets=[10**12, 10**12 + 384])),
        r"damaged .* invalid offset",
    ),
    "a negative offset": (header(lambda h: h[N].update(data_offsets=[-384, 0])), r"is damaged"),
    "a size beyond 64 bits": (header(lambda h: h[N].update(shape=[2**62, 8])), r"is damaged"),
    "a dtype of the future": (header(lambda h: h[N].update(dtype="F1")), r"is damaged"),
    "tensor of another shape": (
        header(lambda h: h[Q].update(shape=[48, 192])),
        rf"tensor {Q} is \(48, 192\), config.json wants \(96, 96\)",
    ),
    "tensor of other bytes": (
        header(lambda h: h[N].update(dtype="F16", shape=[192])),
        rf"tensor {N} is \(192,\), config.json wants \(96,\)",
    ),
    "pickle": (renamed("pytorch_model.bin"), r"pytorch_model.bin is a pickle, which may run any"),
    "gguf": (renamed("model.gguf"), r"model.gguf is of another layout"),
    "no index": (renamed("model-00001-of-00002.safetensors"), r"holds model-00001.*with its index"),
    "index is no JSON": (written("model.safetensors.index.json", "{"), r"json cannot be read"),
    "index is a list": (written("model.safetensors.index.json", "[]"), r"is not a JSON object"),
    "index without map": (written("model.safetensors.index.json", "{}"), r"has no weight_map"),
    "index leaves the folder": (index("../model.safetensors"), r"names '../model.safetensors', wh"),
    "index from the root": (index("/etc/passwd"), r"names '/etc/passwd', which is no file beside"),
    "index of numbers": (index(3), r"names 3, which is no file beside it"),
    "index of nothing": (index(""), r"names '', which is no file beside it"),
    "index of endless names": (index("a" * 5000), r"names 'aaa.*', which is no file"),
    "index of a missing file": (index("model.safetensors", "b"), r"model/b is missing"),
    "deep json": (written("config.json", "[" * 100_000), r"config.json cannot be read"),
    "latin": (lambda f: (f / "config.json").write_bytes(b'{"a": "\xff"}'), r"cannot be read"),
    "config is a folder": (
        lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()),
        r"config.json cannot be read",
    ),
    "empty folder": (
        lambda f: [file.unlink() for file in f.iterdir()],
        r"config.json is missing; give a checkpoint folder",
    ),
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


def test_truncated_shard(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "model", max_shard_size="100KB")
    path = sorted(folder.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(models.CheckpointError, match=r"model-00002.* is damaged or cut short"):
        models.load(folder)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(models.CheckpointError, match="no checkpoint folder .*nothing; give"):
        models.load(tmp_path / "nothing")
    with pytest.raises(models.CheckpointError, match="a model's name on a hub is no folder"):
        models.load(Path("meta-llama/Llama-3.2-1B"))


def test_a_file_for_a_folder(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "model")
    with pytest.raises(models.CheckpointError, match="config.json is a file; give the folder"):
        models.load(folder / "config.json")


def test_max_seq_len_beyond_the_model(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "model")
    with pytest.raises(models.CheckpointError, match="--max-seq-len 513 is not in 1 to 512"):
        models.load(folder, max_seq_len=513)

"""Package: code, weights, tokenizer and report become one file, with a manifest that says all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..custom_ops.shims import schemas
from . import tokenizer
from .archive import ArchiveWriter
from .cache import Compiled
from .capture import BLOCK_SIZE, manifest_graph
from .errors import ExportError
from .isa import IsaLevel
from .symbols import missing
from .toolchain import compiler_version
from .weights import WeightStore

if TYPE_CHECKING:
    from ..models import Decoder

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Source:
    """What a package is made from."""

    checkpoint: Path
    module: Decoder
    compiled: Compiled
    level: IsaLevel


def write(source: Source, store: WeightStore, output: Path, report: Mapping[str, Any]) -> None:
    """Write the package; the file appears only when it is whole. Raises ExportError."""
    try:
        with ArchiveWriter(output) as archive:
            variant = _add_code(archive, source)
            archive.add("ingot/weights.bin", store.chunks())
            has_tokenizer = _add_tokenizer(archive, source)
            archive.add("ingot/report.json", json.dumps(report, indent=1).encode())
            manifest = _manifest(source, store, variant, has_tokenizer)
            manifest["entries"] = archive.entries
            archive.add_last("ingot/manifest.json", json.dumps(manifest, indent=1).encode())
    except OSError as error:
        raise ExportError(
            f"cannot write {output}: {error.strerror}; nothing was left there"
        ) from error


def _add_code(archive: ArchiveWriter, source: Source) -> dict[str, object]:
    entry = f"ingot/variants/{source.level.name}/model.so"
    archive.add(entry, source.compiled.shared_object.read_bytes())
    return {
        "name": source.level.name,
        "device": "cpu",
        "isa": source.level.name,
        "entry": entry,
        "requires": missing(source.compiled.shared_object),
    }


def _add_tokenizer(archive: ArchiveWriter, source: Source) -> bool:
    files = tokenizer.files(source.checkpoint)
    for name, data in files.items():
        archive.add(name, data)
    if "ingot/tokenizer.json" not in files:
        return False
    table = tokenizer.token_bytes(files["ingot/tokenizer.json"], source.module.config.vocab_size)
    archive.add("ingot/token_bytes.bin", tokenizer.pack_token_bytes(table))
    return True


def _manifest(
    source: Source, store: WeightStore, variant: dict[str, object], has_tokenizer: bool
) -> dict[str, Any]:
    from .. import __version__

    config, module = source.module.config, source.module
    return {
        "format_version": FORMAT_VERSION,
        "producer": {
            "ingot": __version__,
            "torch": torch.__version__,
            "compiler": compiler_version(),
        },
        "model": {
            "architecture": config.architecture,
            "kind": "decoder",
            "name": source.checkpoint.resolve().name,
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "num_layers": config.num_layers,
            "num_heads": config.num_heads,
            "num_kv_heads": config.num_kv_heads,
            "head_dim": config.head_dim,
            "max_seq_len": config.max_seq_len,
            "parameters": module.parameter_count,
            "dtype": module.dtype,
        },
        "quantization": None,
        "kv_cache": {
            "dtype": module.kv_dtype,
            "block_size": BLOCK_SIZE,
            "bytes_per_block": module.bytes_per_block,
            "num_layers": config.num_layers,
        },
        "graph": manifest_graph(module),
        "constants": store.constants,
        "ops": {name: schemas()[name] for name in source.compiled.ops},
        "variants": [variant],
        "generation": tokenizer.generation_defaults(source.checkpoint),
        "tokenizer": has_tokenizer,
    }

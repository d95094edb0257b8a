"""Package: code, weights, tokenizer and report become one file, with a manifest that says all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..custom_ops.shims import schemas
from .archive import ArchiveWriter
from .cache import Compiled
from .contracts import Contract
from .cuda.link import provided
from .errors import ExportError
from .symbols import missing
from .targets import Target
from .toolchain import compiler_version
from .weights import WeightStore

FORMAT_VERSION = 1
WEIGHTS = "ingot/weights.bin"


@dataclass(frozen=True)
class Source:
    """What a package is made from. compiled: the graph's code for each target, highest first."""

    contract: Contract
    compiled: Mapping[Target, Compiled]

    @property
    def constants(self) -> tuple[str, ...]:
        """Those that all variants bind: one weight store serves them. Raises ExportError."""
        (first, wanted), *others = ((target, c.constants) for target, c in self.compiled.items())
        for target, names in others:
            if different := set(names) ^ set(wanted):
                raise ExportError(
                    f"code for {target.name} and {first.name} would need different weights"
                    f" ({min(different)}); export a package for each"
                )
        return wanted


def write(
    source: Source,
    archive: ArchiveWriter,
    store: WeightStore,
    report: Callable[[], Mapping[str, Any]],
) -> None:
    """Write what the package holds behind its weights; the file appears, whole. Raises
    ExportError."""
    store.end()
    variants = [_add_code(archive, source, target) for target in source.compiled]
    if library := source.contract.op_library:
        archive.add(library.entry, library.path.read_bytes())
    for name, data in source.contract.files.items():
        archive.add(name, data)
    archive.add("ingot/report.json", json.dumps(report(), indent=1).encode())
    manifest = _manifest(source, store, variants)
    manifest["entries"] = archive.entries
    archive.add_last("ingot/manifest.json", json.dumps(manifest, indent=1).encode())
    archive.finish()


def _add_code(archive: ArchiveWriter, source: Source, target: Target) -> dict[str, object]:
    entry, library = f"ingot/variants/{target.name}/model.so", source.contract.op_library
    code = source.compiled[target].shared_object
    archive.add(entry, code.read_bytes())
    cuda = provided() if target.device == "cuda" else frozenset()
    return {
        "name": target.name,
        "device": target.device,
        **target.facts,
        "entry": entry,
        "requires": missing(code, *([library.path] if library else []), also=cuda),
    }


def _manifest(
    source: Source, store: WeightStore, variants: list[dict[str, object]]
) -> dict[str, Any]:
    from .. import __version__

    contract, first = source.contract, next(iter(source.compiled))
    return {
        "format_version": FORMAT_VERSION,
        "producer": {
            "ingot": __version__,
            "torch": torch.__version__,
            "compiler": compiler_version(),
            **first.toolchain,
        },
        "device": first.device,
        "model": contract.card,
        "quantization": None,
        "graph": {
            "inputs": contract.inputs,
            "outputs": contract.outputs,
            "symbols": contract.symbols,
        },
        "constants": store.constants,
        "ops": {name: schemas()[name] for c in source.compiled.values() for name in c.ops},
        "variants": variants,
        "op_libraries": [contract.op_library.entry] if contract.op_library else [],
        **contract.sections,
    }

"""An ONNX model on disk: the graph, its weights and its tokenizer's files, whole or not at all.

Beside `model.onnx` lie `model.onnx.data` and, as `model.onnx.tokenizer.json`, what a package holds
of the tokenizer. What the model is lies in its own metadata, under `ingot`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from ..contracts import Contract
from ..errors import ExportError
from .dense import Signature
from .graph import MODULE

FORMAT_VERSION = 1


def manifest(contract: Contract, signature: Signature, graph: ir.Graph) -> str:
    """JSON: the fields of a package's manifest that an ONNX model has, and `code_bytes`: of each
    linear's codes, by the linear's path. ONNX Runtime's profiler does not count them.
    """
    from ... import __version__

    sections = {k: v for k, v in contract.sections.items() if k != "kv_cache"}
    entries = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in contract.files.items()
    }
    return json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "producer": {"ingot": __version__, "torch": torch.__version__},
            "model": contract.card,
            "graph": {"inputs": signature.inputs, "outputs": signature.outputs},
            **sections,
            "code_bytes": _code_bytes(graph),
            "entries": entries,
        }
    )


def _code_bytes(graph: ir.Graph) -> dict[str, int]:
    found = {}
    for node in graph:
        if node.op_type == "MatMulNBits":
            codes = node.inputs[1]
            assert codes is not None
            assert codes.const_value is not None
            found[node.metadata_props[MODULE]] = codes.const_value.nbytes
    return found


def write(model: ir.Model, entries: dict[str, bytes], output: Path) -> None:
    """Write model, weights and entries beside each other. Raises ExportError."""
    output = output.resolve()
    try:
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
            staged = Path(folder) / output.name
            ir.save(model, staged, external_data=f"{output.name}.data")
            for name, data in entries.items():
                staged.with_name(f"{output.name}.{Path(name).name}").write_bytes(data)
            onnx.checker.check_model(staged)
            # The model itself last: with it, all that it needs is there.
            for path in sorted(Path(folder).iterdir(), key=lambda path: path == staged):
                os.replace(path, output.with_name(path.name))
    except OSError as error:
        raise ExportError(
            f"cannot write {output}: {error.strerror}; nothing was left there"
        ) from error
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the ONNX checker refuses the model: {error}") from error

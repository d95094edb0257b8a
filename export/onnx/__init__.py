"""ONNX: a checkpoint's model as one .onnx file, for ONNX Runtime and whatever else reads it.

The modules are those of packages. For tracing they get a dense signature (`dense.py`), their
linears and embeddings ONNX's weights (`modules.py`) and their attention ONNX's operators
(`attention.py`); `graph.py` traces and names, `files.py` writes. docs/onnx.md says what comes out.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExportError

if TYPE_CHECKING:
    from ...profiling.record import Recorder
    from ..contracts import Contract

__all__ = ["check_options", "export_onnx"]


def check_options(output: Path, kv_dtype: str, isa: str | None, device: str) -> None:
    """Raises ExportError for what an ONNX model cannot be, before anything is loaded."""
    for library in ("onnx", "onnxscript"):
        if importlib.util.find_spec(library) is None:
            raise ExportError(
                f"{library} is not installed; --format onnx needs it: pip install 'ingot[onnx]'"
            )
    if output.suffix != ".onnx":
        raise ExportError(f"an ONNX model's name ends in .onnx, {output.name} does not")
    if kv_dtype not in ("auto", "float32"):
        raise ExportError(
            f"--kv-dtype {kv_dtype} is for packages: the cache of an ONNX model is float32"
        )
    if isa is not None:
        raise ExportError("--isa is for packages: an ONNX model holds no native code")
    if device != "cpu":
        raise ExportError(f"--device {device} is for packages: an ONNX model holds no native code")


def export_onnx(contract: Contract, output: Path, recorder: Recorder) -> dict[str, Any]:
    """Write the contract's model, and its tokenizer's files beside it; returns the record.

    The model is used up: its weights are in ONNX's layout afterwards. Raises ExportError; nothing
    is left at `output` then.
    """
    with recorder.phase("import onnx"):
        from . import dense, files, graph, modules
    with recorder.phase("unpack weights"):
        modules.swap(contract.module)
    signature = dense.signature_of(contract.module)
    with recorder.phase("capture"):
        program = graph.capture(signature)
    with recorder.phase("translate"):
        model = graph.translate(program, signature)
        model.metadata_props["ingot"] = files.manifest(contract, signature, model.graph)
    recorder.note("nodes", len(model.graph))
    with recorder.phase("write"):
        files.write(model, contract.files, output)
    return recorder.finish().to_dict()

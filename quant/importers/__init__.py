"""Importers of checkpoints that were quantised elsewhere: AutoAWQ, GPTQ, compressed-tensors.

An importer's weights are those of the checkpoint, to the bit: `dequantised()` is (q - z) * s.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ...models.checkpoint import read_json
from ...models.errors import CheckpointError, shortened
from ...models.families.family import Fields
from .autoawq import AutoAWQ
from .compressed_tensors import read_compressed_tensors
from .gptq import GPTQ
from .importer import Expected, Importer

__all__ = ["Expected", "Importer", "find"]

_METHODS = {"awq": AutoAWQ, "gptq": GPTQ, "compressed-tensors": read_compressed_tensors}


def find(config: dict[str, Any], checkpoint: Path, names: Collection[str]) -> Importer | None:
    """The importer for a checkpoint; None: it is not quantised.

    config: config.json's. names: of all tensors in its files. Raises CheckpointError, which names
    the layout, for one that is quantised in a way that is not supported.
    """
    values, where = _quantisation(config, checkpoint)
    if values is None:
        return None
    fields = Fields(values)
    try:
        return _METHODS[_method(fields)](fields, checkpoint, names)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _method(fields: Fields) -> str:
    """Raises ValueError for one that is none of _METHODS."""
    unnamed = fields.get("load_in_8bit") or fields.get("load_in_4bit")
    method = fields.text("quant_method", "bitsandbytes" if unnamed else "none")
    if method not in _METHODS:
        known = ", ".join(_METHODS)
        raise ValueError(
            f"quantisation by {shortened(method)} is not supported; supported are {known}: take"
            " such a checkpoint, or the original one"
        )
    return method


def _quantisation(config: dict[str, Any], checkpoint: Path) -> tuple[dict[str, Any] | None, Path]:
    """The quantisation config, and the file that holds it: older checkpoints have it apart."""
    where = checkpoint / "config.json"
    values = config.get("quantization_config") or config.get("compression_config")
    if values is not None and not isinstance(values, dict):
        raise CheckpointError(f"{where}: quantization_config is not an object; take the original")
    if values:
        return values, where
    awq, gptq = checkpoint / "quant_config.json", checkpoint / "quantize_config.json"
    if awq.is_file():
        old = read_json(awq)
        for ours, theirs in (("bits", "w_bit"), ("group_size", "q_group_size")):
            if theirs in old:
                old[ours] = old.pop(theirs)
        return {"quant_method": "awq", **old}, awq
    if gptq.is_file():
        return {"quant_method": "gptq", **read_json(gptq)}, gptq
    return None, where

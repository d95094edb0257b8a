"""The ops as AOTInductor sees them: C declarations of their shims, derived from the schemas."""

from __future__ import annotations

import torch

from . import declare
from .schema import shim_declaration, shim_name


def c_shims(device: str = "cpu") -> dict[torch._ops.OpOverload, list[str]]:
    """For `torch._inductor.config.aot_inductor.custom_ops_to_c_shims`: each op's C declaration for
    tensors of `device`, "cpu" or "cuda"."""
    return {op.overload: [shim_declaration(op.schema, device)] for op in declare.OPS.values()}


def shim_names(device: str) -> list[str]:
    return [shim_name(op.schema, device) for op in declare.OPS.values()]


def schemas() -> dict[str, str]:
    """Schema string of every op by name; packages store those that they call."""
    return {name: op.schema.text for name, op in declare.OPS.items()}

"""Where the scales of a linear's inputs can go instead of into its op: into what makes the inputs.

Exact where that is linear in them and nothing else reads them. Norms that stand behind a sum
(BERT), or after the block's part (OLMo 2), feed other things too; an activation is not linear.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from ..models.decoder import Block
from ..models.layers import filled
from .weight import QuantisedWeight, as_stored


@dataclass(frozen=True)
class Source:
    """A module of the same block: a norm, or a linear and which of its outputs are the inputs."""

    module: str
    rows: slice | None = None

    @property
    def is_norm(self) -> bool:
        return self.rows is None


def sources_of(block: nn.Module) -> dict[str, Source]:
    """By the block's linears, where their scales can go."""
    if not isinstance(block, Block):
        return {}
    attention, mlp = block.self_attn, block.mlp
    first = "mlp.gate_up_proj" if mlp.gated else "mlp.up_proj"
    found = {}
    for name, norm in (("self_attn.qkv_proj", block.norms[0]), (first, block.norms[2])):
        if norm is not None:
            found[name] = Source(norm)
    if mlp.gated:
        found["mlp.down_proj"] = Source(first, slice(mlp.down_proj.inputs, None))
    queries, keys, values = attention.sizes
    if queries == values:  # else several heads read the same values, and may want other scales
        rows = slice(queries + keys, None)
        found["self_attn.o_proj"] = Source("self_attn.qkv_proj", rows)
    return found


def into_norm(norm: nn.Module, scale: Tensor) -> None:
    """Multiply a norm's outputs by `scale` [H]."""
    for name, tensor in list(norm.named_parameters()):
        setattr(norm, name, filled(tensor * scale))


def into_rows(weight: QuantisedWeight, scale: Tensor) -> QuantisedWeight:
    """Multiply W's rows by `scale` [N]: by its own scales, so the codes stay as they are."""
    return replace(weight, scales=as_stored(weight.scales.float() * scale.unsqueeze(1)))

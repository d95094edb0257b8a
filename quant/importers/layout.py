"""What the layouts share: integers packed into int32, groups, and the order of columns."""

from __future__ import annotations

import torch
from torch import Tensor

from ...custom_ops.quantised_layout import GROUP_SIZES
from ..weight import QuantisedWeight


def words(count: int, bits: int) -> int:
    """How many int32 hold `count` integers."""
    return -(-count * bits // 32)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """int32 [R, words(count)] -> uint8 [R, count]: 4 or 8 bits each, the lowest first."""
    octets = packed.contiguous().view(torch.uint8)  # little-endian: the lowest first
    if bits == 4:
        octets = torch.stack((octets & 15, octets >> 4), -1).flatten(1)
    return octets[:, :count]


def make_weight(
    bits: int,
    group_size: int,
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    g_idx: Tensor | None = None,
    names: tuple[str, str] = ("scales", "g_idx"),
) -> QuantisedWeight:
    """The weight of codes uint8 [N, K], and scales and zeros [N, G] for groups of `group_size`.

    group_size: as on disk, any multiple of 32; -1: one group for a row. g_idx [K]: each column's
    group, where groups are not runs of columns. names: of scales and g_idx, for errors.
    Raises ValueError.
    """
    columns = codes.shape[1]
    # Each of our groups lies within one of those on disk, and repeats its scale.
    if group_size == -1:
        size, group_size = max(GROUP_SIZES), columns
    else:
        size = max(size for size in GROUP_SIZES if group_size % size == 0)
    source = torch.arange(0, columns, size) // group_size
    perm = None
    if g_idx is not None:
        perm = _order(g_idx.long(), group_size, scales.shape[1], names[1])
    return QuantisedWeight(
        bits,
        size,
        (codes if perm is None else codes[:, perm]).contiguous(),
        _stored(scales, names[0])[:, source].contiguous(),
        None if zeros is None else zeros[:, source].contiguous(),
        input_perm=perm,
    )


def _order(g_idx: Tensor, group_size: int, groups: int, name: str) -> Tensor | None:
    """The columns sorted by group, int64 [K]; None if they are. Raises ValueError."""
    outside = g_idx[(g_idx < 0) | (g_idx >= groups)]
    if len(outside):
        raise ValueError(
            f"{name} names group {int(outside[0])} of {groups}; copy the checkpoint again"
        )
    in_runs = torch.arange(len(g_idx)) // group_size
    if torch.equal(g_idx, in_runs):
        return None
    ordered, perm = g_idx.sort(stable=True)
    if not torch.equal(ordered, in_runs):
        raise ValueError(
            f"{name} has groups that are not of {group_size} columns each; quantise again with"
            " equal groups"
        )
    return perm


def _stored(scales: Tensor, name: str) -> Tensor:
    """Scales as float16 where that holds each of them exactly, else float32. Raises ValueError."""
    if not bool(torch.isfinite(scales).all()):
        raise ValueError(f"{name} holds NaN or infinity; copy the checkpoint again")
    exact = bool((scales.half().float() == scales.float()).all())
    return scales.half() if exact else scales.float()

"""The B64 layout of quantised weights: one packed copy for one row of x and for many, at every ISA.

W [N, K] is cut into panels of 64 rows and groups of `group_size` columns (32, 64 or 128; the last
may be partial). Each panel's each group is one block, and a weight is uint8 [panels, groups, block
bytes], the blocks of a panel one after the other as a product with one row of x reads them:

    64 scales      float16, or float32
    64 zeros       uint8; absent where every zero is 2^(bits - 1)
    4 x 64 multipliers   uint8, up to 16; of groups of 128 4-bit codes without zeros, or absent
    codes          rows of 64 32-bit words, a word for each of the panel's rows:
                   4 bits: 8 columns, of which k = 2j + h sits at bit 4j + 16h
                   8 bits: 4 columns, in the order of the bytes

so that W[n, k] = (code - zero) * scale. A mask of a 4-bit word shifted right by 4j is a pair of
columns in 16-bit halves; one of its nibbles are bytes. Rows beyond N have scale 0, columns beyond K
meet no x. A block's size says what is in it: no two choices for the same bits have the same.

Multipliers are double quantisation (QLoRA, Dettmers et al. 2023, section 3): each 32 columns of a
group have a scale of their own, a whole multiple of the group's. (code - 8) * multiplier is an
integer of 8 bits, so sums over 128 columns remain integers, where 32 columns with scales of their
own leave a scaling for each: many rows of x take about half the time, and weights 4.375 bits
instead of 4.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PANEL = 64
GROUP_SIZES = (32, 64, 128)
MULTIPLIED = 32  # columns that share a multiplier
MULTIPLIED_GROUP = 128  # the group size of a layout that has them
MULTIPLIERS = MULTIPLIED_GROUP // MULTIPLIED
LARGEST_MULTIPLIER = 16  # times the least code, -8, it is -128
_SHIFTS = {
    4: [4 * (k // 2) + 16 * (k % 2) for k in range(8)],
    8: [8 * k for k in range(4)],
}


class Layout(NamedTuple):
    """What a block holds."""

    bits: int
    group_size: int
    scale_dtype: torch.dtype
    zero_points: bool
    multipliers: bool = False

    @property
    def codes_offset(self) -> int:
        heads = self.scale_dtype.itemsize + self.zero_points + self.multipliers * MULTIPLIERS
        return PANEL * heads

    @property
    def scale_group(self) -> int:
        """Columns that share a scale, multiplied or not."""
        return MULTIPLIED if self.multipliers else self.group_size

    @property
    def block_bytes(self) -> int:
        return self.codes_offset + PANEL * self.group_size * self.bits // 8

    @property
    def name(self) -> str:
        """As the manifest states it: w4.b64.g128.fp16, with .zp where there are zero points and
        .m32 where 32 columns have a multiplier."""
        scales = {torch.float16: "fp16", torch.float32: "fp32"}[self.scale_dtype]
        ends = f"{'.zp' * self.zero_points}{f'.m{MULTIPLIED}' * self.multipliers}"
        return f"w{self.bits}.b64.g{self.group_size}.{scales}{ends}"


class Unpacked(NamedTuple):
    """What a packed weight holds: codes uint8 [N, K], scales float16 or float32 [N, groups], zeros
    uint8 [N, groups] or None, multipliers uint8 [N, 4 groups] or None."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    multipliers: Tensor | None


def layouts(bits: int) -> Iterator[Layout]:
    """All that codes of so many bits can have."""
    for dtype in (torch.float16, torch.float32):
        for group_size in GROUP_SIZES:
            for zero_points in (False, True):
                yield Layout(bits, group_size, dtype, zero_points)
        if bits == 4:
            yield Layout(bits, MULTIPLIED_GROUP, dtype, False, multipliers=True)


def layout_of(weight: Tensor, bits: int) -> Layout:
    """The layout of a packed weight. Raises ValueError for a size that is none's."""
    for layout in layouts(bits):
        if layout.block_bytes == weight.shape[2]:
            return layout
    raise ValueError(f"no block of {bits}-bit codes has {weight.shape[2]} bytes")


def pack(
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    bits: int,
    group_size: int,
    multipliers: Tensor | None = None,
) -> Tensor:
    """What `Unpacked` names, to uint8 [panels, groups, block bytes]."""
    layout = Layout(bits, group_size, scales.dtype, zeros is not None, multipliers is not None)
    (rows, columns), groups = codes.shape, scales.shape[1]
    panels = -(-rows // PANEL)
    missing = panels * PANEL - rows

    def by_panel(values: Tensor, count: int = 1) -> Tensor:
        """[N, count * groups] -> bytes [panels, groups, count * 64 values]."""
        padded = F.pad(values, (0, 0, 0, missing)).view(panels, PANEL, count * groups)
        by_group = padded.transpose(1, 2).contiguous().view(torch.uint8)
        return by_group.view(panels, groups, count * PANEL * values.itemsize)

    shifts = _SHIFTS[bits]
    padded = F.pad(codes, (0, groups * group_size - columns, 0, missing))
    depth = group_size // len(shifts)
    split = padded.view(panels, PANEL, groups, depth, len(shifts)).permute(4, 0, 2, 3, 1)
    words = torch.zeros(split.shape[1:], dtype=torch.int32, device=codes.device)
    for part, shift in zip(split, shifts, strict=True):
        words |= part.int() << shift
    packed = words.contiguous().view(torch.uint8).view(panels, groups, depth * PANEL * 4)
    parts = [by_panel(scales)]
    if zeros is not None:
        parts.append(by_panel(zeros))
    if multipliers is not None:
        parts.append(by_panel(multipliers, MULTIPLIERS))
    weight = torch.cat([*parts, packed], dim=2)
    assert weight.shape[2] == layout.block_bytes
    return weight


def unpack(weight: Tensor, bits: int, out_features: int, in_features: int) -> Unpacked:
    """What `pack` was given."""
    layout = layout_of(weight, bits)
    panels, groups, _ = weight.shape

    def by_row(first: int, dtype: torch.dtype, count: int = 1) -> Tensor:
        """`count` times 64 values of each block from byte `first` on -> [N, count * groups]."""
        part = weight[:, :, first : first + count * PANEL * dtype.itemsize]
        values = part.contiguous().view(dtype).view(panels, groups * count, PANEL)
        by_row = values.transpose(1, 2).reshape(panels * PANEL, groups * count)
        return by_row[:out_features].contiguous()

    shifts = _SHIFTS[bits]
    words = weight[:, :, layout.codes_offset :].contiguous().view(torch.int32)
    depth = layout.group_size // len(shifts)
    words = words.view(panels, groups, depth, PANEL).permute(0, 3, 1, 2)
    codes = torch.stack([words >> shift & 2**bits - 1 for shift in shifts], dim=-1)
    codes = codes.to(torch.uint8).reshape(panels * PANEL, groups * layout.group_size)
    behind = PANEL * layout.scale_dtype.itemsize
    return Unpacked(
        codes[:out_features, :in_features].contiguous(),
        by_row(0, layout.scale_dtype),
        by_row(behind, torch.uint8) if layout.zero_points else None,
        by_row(behind, torch.uint8, MULTIPLIERS) if layout.multipliers else None,
    )


def dequantise(weight: Tensor, bits: int, out_features: int, in_features: int) -> Tensor:
    """W float32 [N, K] of a packed weight."""
    parts = unpack(weight, bits, out_features, in_features)
    scales, group_size = scales_of_groups(
        parts.scales, parts.multipliers, layout_of(weight, bits).group_size
    )
    return matrix_of(parts.codes, scales, parts.zeros, bits, group_size)


def scales_of_groups(
    scales: Tensor, multipliers: Tensor | None, group_size: int
) -> tuple[Tensor, int]:
    """With multipliers, those of the groups of 32, float32 [N, 4 groups]; and the groups' size."""
    if multipliers is None:
        return scales, group_size
    return scales.float().repeat_interleave(MULTIPLIERS, dim=1) * multipliers, MULTIPLIED


def matrix_of(
    codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, group_size: int
) -> Tensor:
    """W float32 [N, K]: (code - zero) * scale."""
    (rows, columns), groups = codes.shape, scales.shape[1]
    padded = F.pad(codes, (0, groups * group_size - columns)).view(rows, groups, group_size)
    middle = 2 ** (bits - 1) if zeros is None else zeros.float().unsqueeze(-1)
    matrix = padded.float().sub_(middle).mul_(scales.float().unsqueeze(-1))
    return matrix.flatten(1)[:, :columns].contiguous()

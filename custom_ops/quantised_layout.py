"""The B64 layout of quantised weights: one packed copy for one row of x and for many, at every ISA.

W [N, K] is cut into panels of 64 rows and groups of `group_size` columns (32, 64 or 128; the last
may be partial). Each panel's each group is one block, and a weight is uint8 [panels, groups, block
bytes], the blocks of a panel one after the other as a product with one row of x reads them:

    64 scales      float16, or float32
    64 zeros       uint8; absent where every zero is 2^(bits - 1)
    codes          rows of 64 32-bit words, a word for each of the panel's rows:
                   4 bits: 8 columns, of which k = 2j + h sits at bit 4j + 16h
                   8 bits: 4 columns, in the order of the bytes

so that W[n, k] = (code - zero) * scale. A mask of a 4-bit word shifted right by 4j is a pair of
columns in 16-bit halves; one of its nibbles are bytes. Rows beyond N have scale 0, columns beyond K
meet no x. A block's size says what is in it: no two choices for the same bits have the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PANEL = 64
GROUP_SIZES = (32, 64, 128)
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

    @property
    def codes_offset(self) -> int:
        return PANEL * (self.scale_dtype.itemsize + self.zero_points)

    @property
    def block_bytes(self) -> int:
        return self.codes_offset + PANEL * self.group_size * self.bits // 8

    @property
    def name(self) -> str:
        """As the manifest states it: w4.b64.g128.fp16, with .zp where there are zero points."""
        scales = {torch.float16: "fp16", torch.float32: "fp32"}[self.scale_dtype]
        return f"w{self.bits}.b64.g{self.group_size}.{scales}{'.zp' * self.zero_points}"


def layout_of(weight: Tensor, bits: int) -> Layout:
    """The layout of a packed weight. Raises ValueError for a size that is none's."""
    for group_size in GROUP_SIZES:
        for dtype in (torch.float16, torch.float32):
            for zero_points in (False, True):
                layout = Layout(bits, group_size, dtype, zero_points)
                if layout.block_bytes == weight.shape[2]:
                    return layout
    raise ValueError(f"no block of {bits}-bit codes has {weight.shape[2]} bytes")


def pack(codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, group_size: int) -> Tensor:
    """codes uint8 [N, K], scales float16 or float32 [N, groups], zeros uint8 alike or None, to
    uint8 [panels, groups, block bytes]."""
    layout = Layout(bits, group_size, scales.dtype, zeros is not None)
    (rows, columns), groups = codes.shape, scales.shape[1]
    panels = -(-rows // PANEL)
    missing = panels * PANEL - rows

    def by_panel(values: Tensor) -> Tensor:
        """[N, groups] -> bytes [panels, groups, 64 values]."""
        padded = F.pad(values, (0, 0, 0, missing)).view(panels, PANEL, groups)
        return padded.transpose(1, 2).contiguous().view(torch.uint8)

    shifts = _SHIFTS[bits]
    padded = F.pad(codes, (0, groups * group_size - columns, 0, missing))
    depth = group_size // len(shifts)
    split = padded.view(panels, PANEL, groups, depth, len(shifts)).permute(4, 0, 2, 3, 1)
    words = torch.zeros(split.shape[1:], dtype=torch.int32, device=codes.device)
    for part, shift in zip(split, shifts, strict=True):
        words |= part.int() << shift
    packed = words.contiguous().view(torch.uint8).view(panels, groups, depth * PANEL * 4)
    parts = [by_panel(scales), *([] if zeros is None else [by_panel(zeros)]), packed]
    weight = torch.cat(parts, dim=2)
    assert weight.shape[2] == layout.block_bytes
    return weight


def unpack(
    weight: Tensor, bits: int, out_features: int, in_features: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `pack` was given: codes [N, K], scales [N, groups], zeros alike or None."""
    layout = layout_of(weight, bits)
    panels, groups, _ = weight.shape

    def by_row(first: int, dtype: torch.dtype) -> Tensor:
        """64 values of each block from byte `first` on -> [N, groups]."""
        part = weight[:, :, first : first + PANEL * dtype.itemsize].contiguous().view(dtype)
        return part.transpose(1, 2).reshape(panels * PANEL, groups)[:out_features].contiguous()

    shifts = _SHIFTS[bits]
    words = weight[:, :, layout.codes_offset :].contiguous().view(torch.int32)
    depth = layout.group_size // len(shifts)
    words = words.view(panels, groups, depth, PANEL).permute(0, 3, 1, 2)
    codes = torch.stack([words >> shift & 2**bits - 1 for shift in shifts], dim=-1)
    codes = codes.to(torch.uint8).reshape(panels * PANEL, groups * layout.group_size)
    zeros_at = PANEL * layout.scale_dtype.itemsize
    return (
        codes[:out_features, :in_features].contiguous(),
        by_row(0, layout.scale_dtype),
        by_row(zeros_at, torch.uint8) if layout.zero_points else None,
    )


def dequantise(weight: Tensor, bits: int, out_features: int, in_features: int) -> Tensor:
    """W float32 [N, K] of a packed weight."""
    unpacked = unpack(weight, bits, out_features, in_features)
    return matrix_of(*unpacked, bits, layout_of(weight, bits).group_size)


def matrix_of(
    codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, group_size: int
) -> Tensor:
    """W float32 [N, K]: (code - zero) * scale, from what `pack` takes."""

    (rows, columns), groups = codes.shape, scales.shape[1]
    padded = F.pad(codes, (0, groups * group_size - columns)).view(rows, groups, group_size)
    middle = 2 ** (bits - 1) if zeros is None else zeros.float().unsqueeze(-1)
    matrix = padded.float().sub_(middle).mul_(scales.float().unsqueeze(-1))
    return matrix.flatten(1)[:, :columns].contiguous()

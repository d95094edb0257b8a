"""QuantisedWeight: what every quantiser and importer makes, and the ops' packing takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..custom_ops.quantised_layout import (
    LARGEST_MULTIPLIER,
    MULTIPLIED,
    MULTIPLIED_GROUP,
    MULTIPLIERS,
    matrix_of,
    scales_of_groups,
)


@dataclass(frozen=True)
class QuantisedWeight:
    """A matrix W [N, K] as integers of `bits` bits, with a scale for each row's group of columns:

        W[n, k] = (codes[n, k] - zeros[n, g]) * scales[n, g],  g = k // group_size

    codes: uint8 [N, K], 0 to 2^bits - 1, bits 4 or 8. scales: float16 or float32 [N, G] with
    G = ceil(K / group_size), group_size 32, 64 or 128. zeros: uint8 [N, G], or None: 2^(bits - 1).
    multipliers: uint8 [N, 4 G], up to 16, of 4-bit codes without zeros in groups of 128, or None;
    then the scale of 32 columns is the group's times their multiplier (double quantisation).
    input_scale: float32 [K] or None, and input_perm: int64 [K] or None, say what W multiplies:
    x[..., input_perm] * input_scale. So W's columns, and input_scale, are in the permuted order.
    """

    bits: int
    group_size: int
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None = None
    input_scale: Tensor | None = None
    input_perm: Tensor | None = None
    multipliers: Tensor | None = None

    def matrix(self) -> Tensor:
        """W itself, float32 [N, K]: without input_scale and input_perm."""
        scales, group_size = scales_of_groups(self.scales, self.multipliers, self.group_size)
        return matrix_of(self.codes, scales, self.zeros, self.bits, group_size)

    def rows(self, which: slice) -> QuantisedWeight:
        """Some of W's rows."""
        return replace(
            self,
            codes=self.codes[which],
            scales=self.scales[which],
            zeros=None if self.zeros is None else self.zeros[which],
            multipliers=None if self.multipliers is None else self.multipliers[which],
        )

    def dequantised(self) -> Tensor:
        """The matrix that x as it is would be multiplied with, float32 [N, K]."""
        weight = self.matrix()
        if self.input_scale is not None:
            weight = weight * self.input_scale
        if self.input_perm is not None:
            weight = torch.empty_like(weight).index_copy_(1, self.input_perm, weight)
        return weight


def round_to_nearest(
    weight: Tensor,
    bits: int,
    group_size: int,
    symmetric: bool = True,
    clip: Tensor | float | None = None,
) -> QuantisedWeight:
    """W [N, K] rounded: a group's scale maps its largest magnitude, or with zero points its range,
    to the codes. `clip`, a factor or one for each group [N, G], narrows that range first.

    Scales are float16 where that holds them, else float32. Raises ValueError for a weight that is
    not finite.
    """
    rows, columns = weight.shape
    groups = -(-columns // group_size)
    clips = torch.as_tensor(1.0 if clip is None else clip).expand(rows, groups)
    middle, largest = 2 ** (bits - 1), 2**bits - 1

    spans, lows = torch.empty(rows, groups), torch.zeros(rows, groups)
    for which in row_slices(weight):
        part = finite(grouped(weight[which], groups, group_size))
        if symmetric:
            spans[which] = part.abs().amax(-1) * clips[which] / (middle - 1)
        else:
            lows[which] = part.amin(-1).clamp(max=0) * clips[which]
            highs = part.amax(-1).clamp(min=0) * clips[which]
            spans[which] = (highs - lows[which]) / largest
    scales = as_stored(spans)
    divisor = _divisor(scales)
    zeros = None if symmetric else (-lows / divisor).round().clamp(0, largest)
    codes = torch.empty(rows, columns, dtype=torch.uint8)
    for which in row_slices(weight):
        offset = middle if zeros is None else zeros[which].unsqueeze(-1)
        part = grouped(weight[which], groups, group_size)
        part = (part / divisor[which].unsqueeze(-1)).round().add(offset)
        codes[which] = part.clamp(0, largest).flatten(1)[:, :columns]
    zeros = None if zeros is None else zeros.to(torch.uint8)
    return QuantisedWeight(bits, group_size, codes, scales, zeros)


# From the multiplier that a range asks for, downwards: it may pay to cut off the largest weight.
_NARROWER = (0, 1, 2, 3)


def round_with_multipliers(weight: Tensor, clip: Tensor | float | None = None) -> QuantisedWeight:
    """W [N, K] rounded to 4 bits in groups of 32, whose scales are quantised too: multiples of one
    that 128 columns share (double quantisation: QLoRA, Dettmers et al. 2023, section 3).

    The largest range of four groups decides the shared scale; of the multipliers about a group's
    own range, that with the least squares of what it is off. `clip`, a factor or one for each group
    of 32 [N, ceil(K / 32)], says instead what share of its range the multiplier is to reach over.

    Raises ValueError for a weight that is not finite.
    """
    rows, columns = weight.shape
    blocks = -(-columns // MULTIPLIED_GROUP)
    groups = blocks * MULTIPLIERS
    clips = torch.as_tensor(1.0 if clip is None else clip).expand(rows, -(-columns // MULTIPLIED))
    clips = F.pad(clips, (0, groups - clips.shape[1]))
    spans = torch.empty(rows, groups)
    for which in row_slices(weight):
        part = finite(grouped(weight[which], groups, MULTIPLIED))
        spans[which] = part.abs().amax(-1) / 7
    scales = as_stored(spans.view(rows, blocks, MULTIPLIERS).amax(-1) / LARGEST_MULTIPLIER)
    unit = _divisor(scales).repeat_interleave(MULTIPLIERS, dim=1)
    multipliers = torch.empty(rows, groups, dtype=torch.uint8)
    codes = torch.empty(rows, columns, dtype=torch.uint8)
    for which in row_slices(weight):
        units = grouped(weight[which], groups, MULTIPLIED) / unit[which].unsqueeze(-1)
        most = (spans[which] * clips[which] / unit[which]).round()
        found, rounded = _multiplied(units, most, _NARROWER if clip is None else (0,))
        multipliers[which] = found.to(torch.uint8)
        codes[which] = (rounded + 8).flatten(1)[:, :columns].to(torch.uint8)
    return QuantisedWeight(4, MULTIPLIED_GROUP, codes, scales, multipliers=multipliers)


def _multiplied(x: Tensor, most: Tensor, narrower: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of groups x [N, G, 32] the multiplier [N, G], one of `most` and some less, and the codes from
    -8 to 7 whose product has the least squared distance from x."""
    found, codes = most.clamp(1, LARGEST_MULTIPLIER), torch.zeros_like(x)
    least = torch.full_like(most, torch.inf)
    for less in narrower:
        multiplier = (most - less).clamp(1, LARGEST_MULTIPLIER).unsqueeze(-1)
        rounded = (x / multiplier).round().clamp(-8, 7)
        error = (rounded * multiplier - x).square().sum(-1)
        better = error < least
        least = torch.where(better, error, least)
        found = torch.where(better, multiplier.squeeze(-1), found)
        codes = torch.where(better.unsqueeze(-1), rounded, codes)
    return found, codes


def grouped(values: Tensor, groups: int, size: int) -> Tensor:
    """[rows, K] in groups of columns, filled up with zeros: float32 [rows, G, size]."""
    padded = F.pad(values.float(), (0, groups * size - values.shape[1]))
    return padded.view(-1, groups, size)


def finite(values: Tensor) -> Tensor:
    """They themselves. Raises ValueError unless all are."""
    if not torch.isfinite(values).all():
        raise ValueError("the weight holds NaN or infinity")
    return values


def row_slices(matrix: Tensor) -> list[slice]:
    """Rows to work on at once: what is made of them stays in a core's cache."""
    rows, columns = matrix.shape
    step = max(1, (1 << 18) // max(columns, 1))
    return [slice(first, first + step) for first in range(0, rows, step)]


def weight_error(weight: QuantisedWeight, matrix: Tensor) -> float:
    """How far it is from the `matrix` [N, K] it was: root mean squares, relative; 0 if that is."""
    wrong = right = 0.0
    for rows in row_slices(matrix):
        exact = matrix[rows].float()
        difference = weight.rows(rows).dequantised() - exact
        wrong += float(difference.square_().sum(dtype=torch.float64))
        right += float(exact.square().sum(dtype=torch.float64))
    return (wrong / right) ** 0.5 if right else 0.0


def as_stored(scales: Tensor) -> Tensor:
    """Scales as float16, or float32 where one would be infinite, or subnormal and lose digits."""
    scales = scales.float()
    limits = torch.finfo(torch.float16)
    held = (scales == 0) | ((scales.abs() >= limits.tiny) & (scales.abs() <= limits.max))
    return scales.half() if bool(held.all()) else scales


def _divisor(scales: Tensor) -> Tensor:
    """Scales to divide by: 1 for a group of zeros."""
    return torch.where(scales == 0, 1.0, scales.float())


def concatenate(parts: list[QuantisedWeight]) -> QuantisedWeight:
    """The rows of all, which read the same input. Raises ValueError if they differ in layout."""
    first = parts[0]
    for other in parts[1:]:
        same = (other.bits, other.group_size) == (first.bits, first.group_size)
        if not (
            same
            and (other.multipliers is None) == (first.multipliers is None)
            and _equal(other.input_scale, first.input_scale)
            and _equal(other.input_perm, first.input_perm)
        ):
            raise ValueError("the weights differ in bits, group size, input scale or permutation")
    with_zeros = any(part.zeros is not None for part in parts)
    single = any(part.scales.dtype == torch.float32 for part in parts)
    return replace(
        first,
        codes=torch.cat([part.codes for part in parts]),
        scales=torch.cat([part.scales.float() if single else part.scales for part in parts]),
        zeros=torch.cat([_zeros(part) for part in parts]) if with_zeros else None,
        multipliers=None
        if first.multipliers is None
        else torch.cat([part.multipliers for part in parts if part.multipliers is not None]),
    )


def _zeros(weight: QuantisedWeight) -> Tensor:
    if weight.zeros is not None:
        return weight.zeros
    return torch.full(weight.scales.shape, 2 ** (weight.bits - 1), dtype=torch.uint8)


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))

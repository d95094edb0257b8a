"""What `linear_w4` and `linear_w8` share: the formula, how they round x, their cases.

`linear_w4_activated` and `linear_w8_activated` are an MLP's first linear: they write what
`activated` (activation.py) makes of y. Their arguments end in its name and `gated`.

    y[m, n] = bias[n] + sum over groups g of
              x_scale[m, g] * scale[n, g] * sum over k in g of q[m, k] * (code[n, k] - zero[n, g])

where code - zero is multiplied by the multiplier of k's 32 columns in a layout that has them, and q
and x_scale come from x while it is read: x' = x[:, input_perm] * input_scale is cut into the
weight's groups of columns, and each group of a row becomes integers of `activation_bits`,
q = round(x' / x_scale) with x_scale = max |x'| / (2^(activation_bits - 1) - 1). The sums over k are
of integers and exact, so all ISA levels agree on them. At 16 bits the error is 2^-16 of a group's
largest value, less than that of bfloat16 (2^-9 of each); at 8 bits, 2^-8. 32 bits are 16 and, of
what rounding leaves, another 16, so that float32 itself limits.

A GPU's tensor cores multiply no integers of 16 bits: there x is cut into bfloat16 parts, each the
rounded rest of those before, one at 8 bits (an error of 2^-9 of each value), two at 16 (2^-17) and
three at 32, and the sums are float32.

On the CPU groups whose largest magnitude is below 2^-100 count as zero; one that holds NaN or
infinity makes its row NaN.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import linear
from .activation import activated
from .cost import Cost, Load, nbytes
from .declare import Case
from .quantised_layout import (
    GROUP_SIZES,
    LARGEST_MULTIPLIER,
    MULTIPLIED_GROUP,
    MULTIPLIERS,
    Layout,
    dequantise,
    layout_of,
    pack,
)

EXACT = 0  # activation_bits of a reference that takes x as it is
_TINY = 2.0**-100


def round_activations(x: Tensor, group_size: int, bits: int) -> Tensor:
    """x [M, K] as the kernels see it: each group of a row rounded to integers times a scale."""
    if bits == 32:
        first = round_activations(x, group_size, 16)
        return first + round_activations(x - first, group_size, 16)
    rows, columns = x.shape
    groups = -(-columns // group_size)
    grouped = F.pad(x, (0, groups * group_size - columns)).view(rows, groups, group_size)
    most = 2 ** (bits - 1) - 1
    largest = grouped.abs().amax(-1, keepdim=True)
    seen = largest >= _TINY
    codes = (grouped * torch.where(seen, most / largest, 0.0)).round()
    rounded = torch.where(seen, codes * (largest / most), 0.0)
    rounded = torch.where(torch.isfinite(grouped).all(-1, keepdim=True), rounded, torch.nan)
    return rounded.view(rows, groups * group_size)[:, :columns]


def cut_activations(x: Tensor, bits: int) -> Tensor:
    """x as a GPU's kernels see it: the sum of bfloat16 parts, of which `bits` says how many."""
    seen = torch.zeros_like(x)
    for _ in range({8: 1, 16: 2, 32: 3}[bits]):
        seen = seen + (x - seen).bfloat16().to(x.dtype)
    return seen


def as_multiplied(x: Tensor, input_scale: Tensor | None, input_perm: Tensor | None) -> Tensor:
    x = x if input_perm is None else x[:, input_perm]
    return x if input_scale is None else x * input_scale


def reference_of(bits: int) -> Any:
    def reference(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        input_scale: Tensor | None,
        input_perm: Tensor | None,
        out_features: int,
        activation_bits: int,
        *activation: Any,
    ) -> Tensor:
        matrix = dequantise(weight, bits, out_features, x.shape[1]).to(x.dtype)
        y = F.linear(as_multiplied(x, input_scale, input_perm), matrix, bias)
        return activated(y, *activation)

    return reference


def rounded_of(bits: int) -> Any:
    def rounded(
        level: str,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        input_scale: Tensor | None,
        input_perm: Tensor | None,
        out_features: int,
        activation_bits: int,
        *activation: Any,
    ) -> tuple[Any, ...]:
        x = as_multiplied(x, input_scale, input_perm)
        if level == "cuda":
            x = cut_activations(x, activation_bits)
        else:
            x = round_activations(x, layout_of(weight, bits).group_size, activation_bits)
        return x, weight, bias, None, None, out_features, EXACT, *activation

    return rounded


def cost(
    load: Load,
    x: Any,
    weight: Any,
    bias: Any,
    scale: Any,
    perm: Any,
    n: Any,
    bits: Any,
    *activation: Any,
) -> Cost:
    """As a float linear's: to round x and to scale sums is 1/64 of that and less."""
    plain = linear.cost(load, x, weight, bias, n, *activation)
    return plain._replace(read_bytes=plain.read_bytes + nbytes(scale, perm))


def fake(
    x: Tensor, weight: Tensor, bias: Any, scale: Any, perm: Any, n: int, bits: int, *activation: Any
) -> Tensor:
    return linear.fake(x, weight, bias, n, *activation)


def random_weight(n: int, k: int, layout: Layout, generator: torch.Generator) -> Tensor:
    """A packed weight [n, k] whose products with normal x are about normal."""
    bits, group_size, scale_dtype = layout.bits, layout.group_size, layout.scale_dtype

    def integers(most: int, count: int) -> Tensor:
        return torch.randint(most + 1, (n, count), generator=generator, dtype=torch.uint8)

    groups = -(-k // group_size)
    codes = integers(2**bits - 1, k)
    scales = torch.rand(n, groups, generator=generator) + 0.5
    scales *= 12**0.5 / 2**bits / max(k, 1) ** 0.5
    zeros = integers(2**bits - 1, groups) if layout.zero_points else None
    multipliers = None
    if layout.multipliers:
        multipliers = integers(LARGEST_MULTIPLIER, groups * MULTIPLIERS)
        scales /= LARGEST_MULTIPLIER / 3**0.5  # their root mean square
    return pack(codes, scales.to(scale_dtype), zeros, bits, group_size, multipliers)


def _case(
    bits: int,
    m: int,
    n: int,
    k: int,
    group_size: int,
    activation_bits: int,
    *,
    zero_points: bool = False,
    scale_dtype: torch.dtype = torch.float16,
    multipliers: bool = False,
    bias: bool = False,
    scaled: bool = False,
    permuted: bool = False,
    gap: int = 0,
    special: float | None = None,
    activation: str = "",
    gated: bool = False,
) -> Case:
    """special: a value of x."""
    layout = Layout(bits, group_size, scale_dtype, zero_points, multipliers)

    def make(generator: torch.Generator) -> tuple[Any, ...]:
        x = torch.randn(m, k + gap, generator=generator)[:, :k]
        if special is not None:
            x[0, k // 2] = special
        weight = random_weight(n, k, layout, generator)
        return (
            x,
            weight,
            torch.randn(n, generator=generator) if bias else None,
            torch.rand(k, generator=generator) + 0.5 if scaled else None,
            torch.randperm(k, generator=generator) if permuted else None,
            n,
            activation_bits,
            *((activation, gated) if activation else ()),
        )

    facts = {
        activation: activation != "",
        "gated": gated,
        "zp": zero_points,
        "fp32": scale_dtype == torch.float32,
        "m32": multipliers,
        "bias": bias,
        "scaled": scaled,
        "permuted": permuted,
        "strided": gap > 0,
        f"with-{special}": special is not None,
    }
    name = "-".join([f"{m}x{n}x{k}-g{group_size}-a{activation_bits}", *filter(facts.get, facts)])
    return Case(name, make)


def cases_of(bits: int) -> list[Case]:
    plain = [
        _case(bits, m, n, k, group_size, activation_bits, bias=m % 2 == 1)
        for activation_bits in (8, 16, 32)
        for group_size in GROUP_SIZES
        for m, n, k in [(1, 64, 256), (2, 65, 160), (7, 130, 384), (100, 192, 256)]
    ]
    others = [
        (1, 1, 1, 32, 8, {}),
        (1, 1000, 515, 128, 16, {"zero_points": True, "bias": True}),
        (3, 63, 33, 32, 8, {"zero_points": True}),
        (4, 64, 1024, 64, 8, {"scale_dtype": torch.float32}),
        (5, 128, 129, 128, 8, {"scaled": True, "permuted": True}),
        (6, 192, 2048, 32, 8, {"gap": 8}),
        (6, 192, 2048, 128, 16, {"gap": 3, "scaled": True}),
        (13, 300, 200, 64, 16, {"permuted": True, "zero_points": True}),
        (50, 70, 300, 32, 8, {"zero_points": True, "scale_dtype": torch.float32, "scaled": True}),
        (193, 64, 96, 32, 16, {}),
        (3, 63, 200, 128, 32, {"zero_points": True}),
        (14, 130, 200, 64, 32, {"zero_points": True, "scaled": True, "permuted": True}),
        *((m, 130, 320, 64, 8, {}) for m in (15, 16, 17, 31, 32, 33)),  # around the tiles' limits
        (33, 63, 200, 128, 8, {"zero_points": True, "bias": True}),
        (31, 64, 640, 32, 16, {"zero_points": True}),
        (272, 64, 96, 32, 8, {"scale_dtype": torch.float32}),
        (17, 64, 300, 128, 32, {"scale_dtype": torch.float32, "zero_points": True}),
        (256, 8192, 64, 32, 8, {}),  # an output that is written past the caches
        (257, 8200, 32, 32, 8, {"bias": True}),  # and one whose rows begin within cache lines
        (0, 64, 32, 32, 8, {}),
        (20, 64, 0, 32, 8, {"bias": True}),
        (4, 64, 0, 32, 8, {"bias": True}),
        (3, 64, 128, 32, 8, {"special": float("nan")}),
        (9, 64, 128, 64, 16, {"special": float("inf")}),
        (33, 130, 256, 64, 8, {"special": float("nan")}),
        (2, 64, 128, 32, 16, {"special": 1e30}),
        (2, 64, 128, 32, 8, {"special": 1e-42}),
    ]
    multiplied: list[tuple[int, int, int, int, dict[str, Any]]] = [
        (1, 64, 256, 8, {}),
        (1, 1000, 515, 16, {"bias": True}),
        (2, 65, 160, 8, {}),
        (3, 63, 33, 8, {"scaled": True, "permuted": True}),
        (4, 130, 384, 16, {}),
        (5, 64, 300, 32, {"scale_dtype": torch.float32}),
        (6, 192, 2048, 8, {"gap": 3}),
        (7, 130, 384, 8, {"bias": True}),
        (15, 70, 640, 16, {}),
        (17, 64, 128, 32, {}),
        (33, 130, 256, 8, {"special": float("nan")}),
        (50, 70, 300, 8, {"scale_dtype": torch.float32, "scaled": True}),
        (257, 8200, 128, 8, {"bias": True}),
        (100, 192, 1024, 8, {}),
        (4, 64, 0, 8, {"bias": True}),
        (0, 64, 128, 8, {}),
    ]
    if bits == 4:
        others += [
            (m, n, k, MULTIPLIED_GROUP, activation_bits, {"multipliers": True, **facts})
            for m, n, k, activation_bits, facts in multiplied
        ]
    return plain + [_case(bits, *sizes, **facts) for *sizes, facts in others]  # type: ignore[arg-type]


def activated_cases_of(bits: int) -> list[Case]:
    """Of what becomes of the sums; the sums are those of `cases_of`."""
    silu, gelu, tanh = ({"activation": name} for name in ("silu", "gelu", "gelu_tanh"))
    gated: dict[str, Any] = {**silu, "gated": True}
    sizes: list[tuple[int, int, int, int, int, dict[str, Any]]] = [
        *((m, 256, 320, 64, a, gated) for m in (1, 6, 7, 8, 100) for a in (8, 16, 32)),
        *((m, 130, 320, 64, 8, {**gated, "bias": True}) for m in (1, 6, 7, 17, 100)),
        *((m, 70, 256, 32, 8, how) for m in (1, 33) for how in (silu, gelu, tanh)),
        *((m, 384, 515, 128, 8, {**tanh, "gated": True, "bias": True}) for m in (2, 70)),
        (3, 62, 33, 32, 8, {**gated, "zero_points": True}),
        (1, 2, 1, 32, 8, gated),
        (2, 1, 1, 32, 8, gelu),
        (65, 256, 129, 128, 32, {**gelu, "gated": True, "zero_points": True}),
        (272, 256, 300, 64, 16, {**gated, "gap": 3, "scaled": True, "bias": True}),
        (5, 128, 129, 128, 8, {**gated, "scaled": True, "permuted": True}),
        (193, 64, 200, 64, 16, {**gelu, "scaled": True, "bias": True}),
        (256, 16384, 64, 32, 8, gated),  # an output that is written past the caches
        (257, 8200, 32, 32, 8, {**gelu, "bias": True}),  # and one whose rows begin within lines
        (0, 128, 32, 32, 8, gated),
        (0, 64, 32, 32, 8, gelu),
        *((m, 128, 0, 32, 8, {**gated, "bias": True}) for m in (4, 20, 80)),
        *(
            (m, 128, 128, 32, 16, {**how, "special": special})
            for m in (2, 9, 80)
            for how in (gated, gelu, tanh)
            for special in (float("nan"), float("inf"), 1e30, -1e30)
        ),
    ]
    if bits == 4:
        for m in (1, 33, 80):
            sizes.append((m, 128, 384, MULTIPLIED_GROUP, 8, {**gated, "multipliers": True}))
    return [_case(bits, *size, **facts) for *size, facts in sizes]

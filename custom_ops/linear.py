"""linear: y = x W^T + bias over a packed weight, summed in float32.

    x [M, K] float32, rows any stride apart; bias [N] float32 or None -> [M, N] float32
    weight: W [N, K] packed by `pack_linear`, zero padded,
        float32   [ceil(N/64)][K][64]
        bfloat16  [ceil(N/64)][ceil(K/2)][64][2]: k and k + 1 side by side in a 32-bit lane

N is `out_features`. 64 columns of a k lie together, so one row of x streams through the panels, and
many rows share each load; the layout is the same for every instruction set and for GPUs. A row's
result does not depend on the other rows. M may be 0. At the ISA levels x86-64-v4-bf16 and -amx
(docs/kernels.md) and on a GPU x is rounded to bfloat16 where the weight is bfloat16.

Raises RuntimeError if a shape, dtype or stride is not as above.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .activation import activated
from .cost import Cost, Load, nbytes
from .declare import Case, declare

PANEL = 64


def pack_linear(weight: torch.Tensor) -> torch.Tensor:
    """Packs W [N, K], float32 or bfloat16, into the layout that `linear` and `embedding` read."""
    n, k = weight.shape
    panels = -(-n // PANEL)
    if weight.dtype == torch.float32:
        padded = _padded(weight, panels * PANEL - n, 0)
        return padded.view(panels, PANEL, k).transpose(1, 2).contiguous()
    if weight.dtype == torch.bfloat16:
        words = -(-k // 2)  # pairs, which move as one
        flat = _padded(weight, panels * PANEL - n, k % 2).flatten().view(torch.int32)
        packed = flat.view(panels, PANEL, words).transpose(1, 2).contiguous()
        return packed.flatten().view(torch.bfloat16).view(panels, words, PANEL, 2)
    raise ValueError(f"weights are packed as float32 or bfloat16, not {weight.dtype}")


def _padded(weight: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Contiguous, with so many rows and columns of zeros more; the weight itself if it is that."""
    return F.pad(weight, (0, columns, 0, rows)) if rows or columns else weight.contiguous()


def unpack_linear(packed: torch.Tensor, out_features: int, in_features: int) -> torch.Tensor:
    """The weight [out_features, in_features] back from `pack_linear`'s layout."""
    weight = packed.transpose(1, 2).reshape(packed.shape[0] * PANEL, -1)
    return weight[:out_features, :in_features]


def reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    out_features: int,
    *activation: Any,
) -> torch.Tensor:
    y = F.linear(x, unpack_linear(weight, out_features, x.shape[1]).to(x.dtype), bias)
    return activated(y, *activation)


def rounded(level: str, x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> tuple[Any, ...]:
    """x as bfloat16 where the level multiplies that, and the weight is."""
    if level.endswith(("bf16", "amx", "cuda")) and weight.dtype == torch.bfloat16:
        x = x.bfloat16().float()
    return x, weight, *rest


def fake(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    out_features: int,
    activation: str = "",
    gated: bool = False,
) -> torch.Tensor:
    return x.new_empty(x.shape[0], out_features // 2 if gated else out_features)


def cost(
    load: Load,
    x: Any,
    weight: Any,
    bias: Any,
    out_features: Any,
    activation: str = "",
    gated: bool = False,
) -> Cost:
    """Over the true N and K; the weight's padding is read. An activation is 1/K and less."""
    rows, columns = x.shape
    written = out_features // 2 if gated else out_features
    return Cost(
        2 * rows * out_features * columns,
        nbytes(x, weight, bias),
        rows * written * x.dtype.itemsize,
    )


def case(
    m: int,
    n: int,
    k: int,
    dtype: torch.dtype = torch.float32,
    bias: bool = False,
    gap: int = 0,
    activation: tuple[str, bool] | None = None,
    special: float | None = None,
) -> Case:
    """M, N, K and whether rows of x lie `gap` values apart; special: a value of x."""

    def make(generator: torch.Generator) -> tuple[Any, ...]:
        x = torch.randn(m, k + gap, generator=generator)[:, :k]
        if special is not None:
            x[0, k // 2] = special
        weight = pack_linear((torch.randn(n, k, generator=generator) / k**0.5).to(dtype))
        drawn = torch.randn(n, generator=generator) if bias else None
        return x, weight, drawn, n, *(activation or ())

    function, gated = activation or ("", False)
    facts = {
        str(dtype).removeprefix("torch."): True,
        function: function != "",
        "gated": gated,
        "bias": bias,
        "strided": gap > 0,
        f"with-{special}": special is not None,
    }
    return Case("-".join([f"{m}x{n}x{k}", *filter(facts.get, facts)]), make)


CASES = [
    case(m, n, k, dtype, bias=bias, gap=gap)
    for dtype in (torch.float32, torch.bfloat16)
    for m, n, k, bias, gap in [
        (1, 1, 1, False, 0),
        (1, 64, 128, True, 0),
        (1, 1000, 515, True, 0),
        (2, 65, 7, False, 3),
        (3, 63, 33, True, 0),
        (5, 128, 1024, False, 8),
        (6, 192, 2048, False, 0),
        (13, 300, 129, True, 5),
        (100, 130, 640, True, 0),
        (193, 64, 96, False, 0),
        (0, 64, 32, True, 0),
        (4, 64, 0, True, 0),
    ]
]

declare(
    schema="linear(Tensor x, Tensor weight, Tensor? bias, int out_features) -> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference,
    cases=CASES,
    cost=cost,
    rounded=rounded,
)

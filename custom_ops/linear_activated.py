"""linear_activated: an MLP's first linear, and the activation that follows it.

    x [M, K] float32, rows any stride apart; weight: W [N, K] packed by `pack_linear`;
    bias [N] float32 or None; activation "silu", "gelu" or "gelu_tanh"; N is `out_features`:
    activation(y) [M, N] of y = x W^T + bias; or where gated, of y = gate | up,
    activation(gate) * up [M, N / 2] (Shazeer 2020)

Everything else as `linear`. y is not written to memory but where M is small, N / 2 no multiple of
64, or on a GPU: there once.

Raises RuntimeError if a shape, dtype or stride is not as above, or the activation is none of these.
"""

from __future__ import annotations

import torch

from .activation import rounding_of
from .declare import declare
from .linear import case, cost, fake, reference, rounded

CASES = [
    case(m, n, k, dtype, bias, gap, activation)
    for dtype in (torch.float32, torch.bfloat16)
    for m, n, k, bias, gap, activation in [
        (1, 128, 128, True, 0, ("silu", True)),
        (1, 2, 1, False, 0, ("silu", True)),
        (1, 130, 515, True, 0, ("gelu_tanh", True)),
        (2, 65, 7, False, 3, ("gelu", False)),
        (3, 62, 33, True, 0, ("silu", True)),
        (6, 1024, 640, False, 8, ("silu", True)),
        (13, 300, 129, True, 5, ("silu", True)),
        (17, 128, 64, False, 0, ("gelu_tanh", False)),
        (70, 256, 300, True, 0, ("gelu", True)),
        (100, 130, 640, True, 0, ("gelu", False)),
        (193, 384, 96, False, 0, ("silu", True)),
        (272, 256, 2048, True, 0, ("silu", True)),
        (0, 64, 32, True, 0, ("silu", True)),
        (4, 128, 0, True, 0, ("silu", True)),
        (80, 128, 0, True, 0, ("silu", True)),
    ]
] + [
    case(m, 128, 64, dtype, False, 0, activation, special)
    for dtype in (torch.float32, torch.bfloat16)
    for m in (2, 80)
    for activation in (("silu", True), ("gelu", False), ("gelu_tanh", True))
    for special in (float("nan"), 1e30, -1e30)  # of infinity torch's own makes NaN here and there
]

declare(
    schema="linear_activated(Tensor x, Tensor weight, Tensor? bias, int out_features, "
    "str activation, bool gated) -> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference,
    cases=CASES,
    cost=cost,
    rounded=rounded,
    rounding=rounding_of(reference),
)

"""linear_w8: y = x' W^T + bias over 8-bit weights, x rounded to integers as it is read.

    x [M, K] float32, rows any stride apart; weight: W [N, K] packed as quantised_layout.py says;
    bias [N] float32 or None; input_scale [K] float32 or None, input_perm [K] int64 or None:
    x' = x[:, input_perm] * input_scale; N is `out_features`; activation_bits 8, 16 or 32
    -> [M, N] float32

The formula and the rounding of x: quantised_linear.py. A row's result does not depend on the other
rows. M may be 0.

Raises RuntimeError if a shape, dtype or stride is not as above, or input_perm leaves [0, K).
"""

from __future__ import annotations

from .declare import declare
from .quantised_linear import cases_of, cost, fake, reference_of, rounded_of

declare(
    schema="linear_w8(Tensor x, Tensor weight, Tensor? bias, Tensor? input_scale, "
    "Tensor? input_perm, int out_features, int activation_bits) -> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference_of(8),
    cases=cases_of(8),
    cost=cost,
    rounded=rounded_of(8),
)

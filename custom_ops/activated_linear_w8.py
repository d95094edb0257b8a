"""activated_linear_w8: an MLP's second linear, linear_w8 of what the activation makes of x.

    x [M, K] float32, or where gated [M, 2K] = gate | up, rows any stride apart;
    weight: W [N, K] packed as quantised_layout.py says; bias [N] float32 or None;
    input_scale [K] float32 or None, input_perm [K] int64 or None;
    activation "silu", "gelu" or "gelu_tanh":
    a = activation(x), where gated activation(gate) * up, in float32;
    x' = a[:, input_perm] * input_scale; N is `out_features`; activation_bits 8, 16 or 32
    -> [M, N] float32

Everything else as linear_w8. a is not written to memory (on a GPU it is, once).

Raises RuntimeError if a shape, dtype or stride is not as above, input_perm leaves [0, K), or the
activation is none of these.
"""

from __future__ import annotations

from .declare import declare
from .quantised_linear import activated_cases_of, cost, fake, reference_of, rounded_of

declare(
    schema="activated_linear_w8(Tensor x, Tensor weight, Tensor? bias, Tensor? input_scale, "
    "Tensor? input_perm, int out_features, int activation_bits, str activation, bool gated) "
    "-> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference_of(8),
    cases=activated_cases_of(8),
    cost=cost,
    rounded=rounded_of(8),
)

"""linear_w8_activated: an MLP's first linear, linear_w8, and the activation that follows it.

    x, weight, bias, input_scale, input_perm, out_features N and activation_bits as linear_w8's;
    activation "silu", "gelu" or "gelu_tanh":
    activation(y) [M, N] of linear_w8's y; or where gated, of y = gate | up,
    activation(gate) * up [M, N / 2] (Shazeer 2020), in float32

Everything else as linear_w8. y is not written to memory but where M is small, N / 2 no multiple of
64, or on a GPU: there once.

Raises RuntimeError if a shape, dtype or stride is not as above, input_perm leaves [0, K), or the
activation is none of these.
"""

from __future__ import annotations

from .activation import rounding_of
from .declare import declare
from .quantised_linear import activated_cases_of, cost, fake, reference_of, rounded_of

declare(
    schema="linear_w8_activated(Tensor x, Tensor weight, Tensor? bias, Tensor? input_scale, "
    "Tensor? input_perm, int out_features, int activation_bits, str activation, bool gated) "
    "-> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference_of(8),
    cases=activated_cases_of(8),
    cost=cost,
    rounded=rounded_of(8),
    rounding=rounding_of(reference_of(8)),
)

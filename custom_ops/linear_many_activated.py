"""linear_many_activated: linear_many, and the activation that follows it.

    x, weight, bias and out_features as linear_many's, activation and gated as linear_activated's,
    and so is what is returned

Raises RuntimeError as linear_activated does.
"""

from __future__ import annotations

from .activation import rounding_of
from .declare import declare
from .linear import cost, fake, reference, rounded
from .linear_activated import CASES

declare(
    schema="linear_many_activated(Tensor x, Tensor weight, Tensor? bias, int out_features, "
    "str activation, bool gated) -> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference,
    cases=CASES,
    cost=cost,
    rounded=rounded,
    rounding=rounding_of(reference),
)

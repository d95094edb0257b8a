"""linear_many: linear for many rows, as an encoder has them.

    x [M, K] float32, rows any stride apart; bias [N] float32 or None -> [M, N] float32
    weight: W [N, K] packed by `pack_linear`

The formula is that of `linear`, and so is the accuracy. With Intel AMX float32 weights and x are
split into parts that tiles multiply, which is faster from about 32 rows; fewer rows take as long as
that many. So a result may differ from `linear`'s in the last bits. Elsewhere, and of bfloat16
weights, it is linear's.
"""

from __future__ import annotations

from .declare import declare
from .linear import CASES, cost, fake, reference, rounded

declare(
    schema="linear_many(Tensor x, Tensor weight, Tensor? bias, int out_features) -> Tensor",
    doc=__doc__,
    fake=fake,
    reference=reference,
    cases=CASES,
    cost=cost,
    rounded=rounded,
)

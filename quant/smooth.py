"""SmoothQuant: scales that move what is hard to round from inputs to weights (Xiao et al. 2023,
arXiv:2211.10438).

Section 4, equation 4: s = max |x|^alpha / max |W|^(1 - alpha) for each column. The paper takes one
alpha for a model, mostly 0.5; here each linear takes the one with the least error of its output,
or no scales if none helps.
"""

from __future__ import annotations

from torch import Tensor

from .observe import Seen
from .recipe import Rule
from .search import Found, best

ALPHAS = [i / 10 for i in range(1, 10)]


def search(weight: Tensor, seen: Seen, rule: Rule) -> Found:
    """Scales for W [N, K]."""
    most = weight.abs().amax(0)
    return best(weight, seen.searched, {a: scale_of(seen.largest, most, a) for a in ALPHAS}, rule)


def scale_of(inputs: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """The divisor of each column's inputs [K], from the largest |x| and |W| of each."""
    return inputs.clamp(min=1e-5).pow(alpha) / weights.clamp(min=1e-5).pow(1 - alpha)

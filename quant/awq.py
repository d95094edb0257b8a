"""AWQ: scales that keep the weights of large inputs precise (Lin et al. 2023, arXiv:2306.00978).

Section 3.2: of W's columns those matter most that meet large inputs; multiplied by s > 1 before
they are rounded, and their inputs divided by it, their error shrinks by about as much. Equations 4
and 5: s = (mean |x|)^alpha, alpha from a grid, by the error of the output on calibration texts.
Then each group's range is narrowed where that lowers the error of its part of the output; the
authors' code leaves queries and keys out of this, but they gain from it too: on the demo model
perplexity is 23.81 with them and 24.19 without (32 samples).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .observe import Seen
from .recipe import Rule
from .search import Found, best, quantise
from .weight import grouped, row_slices

ALPHAS = [i / 20 for i in range(1, 20)]  # 0 is no scale
CLIPS = [1 - i / 20 for i in range(11)]  # of a group's range


def search(weight: Tensor, seen: Seen, rule: Rule) -> Found:
    """Scales and clips for W [N, K]."""
    x = seen.searched
    found = best(weight, x, {alpha: scale_of(seen.mean, alpha) for alpha in ALPHAS}, rule)
    if found.scale is not None:
        weight, x = weight * found.scale, x / found.scale
    return Found(found.scale, found.alpha, best_clip(weight, x, rule))


def scale_of(mean: Tensor, alpha: float) -> Tensor:
    """mean^alpha [K], its largest and least equally far from 1."""
    scale = mean.pow(alpha).clamp(min=1e-4)
    return scale / (scale.max() * scale.min()).sqrt()


def best_clip(weight: Tensor, x: Tensor, rule: Rule) -> Tensor:
    """The factor for each group's range [N, G] with the least sum over x of (x_g dW_g)^2.

    That sum is dW_g (x_g^T x_g) dW_g^T: the rows of x are needed once.
    """
    size = rule.group_size
    groups = -(-weight.shape[1] // size)

    def by_group(values: Tensor) -> Tensor:
        """[rows, K] -> [G, rows, size]"""
        return grouped(values, groups, size).transpose(0, 1)

    inputs = by_group(x)
    gram = inputs.transpose(1, 2) @ inputs
    found = []
    for rows in row_slices(weight):
        exact = weight[rows]
        least = torch.full((groups, len(exact)), torch.inf)
        clips = torch.ones(groups, len(exact))
        for clip in CLIPS:
            error = by_group(quantise(exact, rule, clip).matrix() - exact)
            loss = ((error @ gram) * error).sum(-1)
            better = loss < least
            least, clips = torch.where(better, loss, least), torch.where(better, clip, clips)
        found.append(clips.t())
    return torch.cat(found)

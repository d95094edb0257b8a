"""From logits to a token in numpy, as the C++ runtime does it (csrc/sampler.cpp): the same logits,
settings and seed give the same tokens.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from .base_session import Sampling
from .errors import BadInput

Array = np.ndarray[Any, Any]
_MASK = 2**64 - 1


class Sampler:
    def __init__(self, sampling: Sampling) -> None:
        """Raises BadInput."""
        _check(sampling)
        self._sampling, self._state = sampling, sampling.seed

    def sample(self, logits: Array) -> int:
        """Of float32 [vocab_size]."""
        s = self._sampling
        logits = np.where(np.isnan(logits), -np.inf, logits)
        likeliest = int(logits.argmax())
        if s.temperature <= 0 or not np.isfinite(logits[likeliest]):
            return likeliest
        ids = np.arange(len(logits))
        if 0 < s.top_k < len(logits):
            ids = np.argsort(-logits, kind="stable")[: s.top_k]
        above = (logits[ids] - logits[likeliest]).astype(np.float64)
        mass = np.exp(above / np.float32(s.temperature))
        if s.top_p < 1:  # the smallest set of the likeliest that holds top_p of the mass
            total = np.cumsum(mass)[-1]
            wanted = np.float32(s.top_p) * total
            light = (total - wanted) / (2 * len(ids))  # too light, were all as light: not sorted
            heavy = np.flatnonzero(mass >= light)
            heavy = heavy[np.argsort(-logits[ids[heavy]], kind="stable")]
            heavy = heavy[: np.searchsorted(np.cumsum(mass[heavy]), wanted) + 1]
            ids, mass = ids[heavy], mass[heavy]
        drawn = self._uniform() * np.cumsum(mass)[-1]
        below = np.flatnonzero(np.subtract.accumulate([drawn, *mass])[1:] < 0)
        return int(ids[below[0] if len(below) else len(mass) - 1])

    def _uniform(self) -> float:
        """SplitMix64 (Steele, Lea and Flood 2014), the upper 53 bits as a double in [0, 1)."""
        z = self._state = self._state + 0x9E3779B97F4A7C15 & _MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        return float((z ^ z >> 31) >> 11) * 2.0**-53


def _check(asked: Sampling) -> None:
    numbers = (asked.max_new_tokens, asked.temperature, asked.top_k, asked.top_p, asked.seed)
    if not all(isinstance(number, Real) for number in numbers):
        raise BadInput(f"{numbers} are not all numbers; give numbers")
    if asked.max_new_tokens < 1:
        raise BadInput("max_new_tokens must be at least 1")
    if not asked.temperature >= 0:
        raise BadInput("temperature must not be negative")
    if asked.top_k < 0:
        raise BadInput("top_k must not be negative; 0 turns it off")
    if not 0 < asked.top_p <= 1:
        raise BadInput("top_p must be in (0, 1]")
    if not 0 <= asked.seed <= _MASK:
        raise BadInput(f"seed = {asked.seed} is out of range")

"""Whether traces can be compared at all, and whether engines answered alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import ProfileError
from ..trace import Header

# Largest difference of two outputs, over the largest magnitude in the first: by the coarser of the
# two dtypes. docs/compare.md says what was measured.
TOLERANCES = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2, "int8": 5e-2, "int4": 5e-1}

# Facts of a model's card that engines of one model share, whatever their dtype.
_SAME = ("kind", "vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads")


def check_alike(names: Sequence[str], headers: Sequence[Header]) -> None:
    """Raises ProfileError, saying what does not match. What a trace does not say is passed over."""
    first = headers[0]
    for name, other in zip(names[1:], headers[1:], strict=True):
        found = [
            f"{fact.replace('_', ' ')} {first.model[fact]} and {other.model[fact]}"
            for fact in _SAME
            if fact in first.model and fact in other.model
            if first.model[fact] != other.model[fact]
        ]
        if first.request and other.request:
            found += _requests(first.request, other.request)
        if found:
            raise ProfileError(
                f"{names[0]} and {name} cannot be compared: {'; '.join(found)}. Give runs of one"
                " model on one prompt"
            )


def _requests(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    found = []
    ours, theirs = one.get("tokens", []), other.get("tokens", [])
    if len(ours) != len(theirs):
        found.append(f"prompts of {len(ours)} and {len(theirs)} tokens")
    elif ours != theirs:
        found.append("prompts of other tokens")
    if one.get("new_tokens") != other.get("new_tokens"):
        found.append(f"new tokens {one.get('new_tokens')} and {other.get('new_tokens')}")
    return found


def agreement(reference: Header, other: Header) -> dict[str, Any]:
    """Of an engine's outputs with the reference's.

    tokens_equal: how many are before the first that differs, of `tokens`. error: of the logits
    after the prompt, or an encoder's hidden states, relative to the largest magnitude; None where
    one has none, or where they have other sizes or are not finite, and then they do not agree.
    agrees: the error is within the tolerance and, where both are float32, all tokens are equal;
    without numbers the tokens decide; None where there is nothing to compare.
    """
    tolerance = max(_tolerance(reference), _tolerance(other))
    found: dict[str, Any] = {"tokens_equal": None, "tokens": None, "error": None}
    found |= {"tolerance": tolerance, "agrees": None}
    mine, theirs = reference.result.get("tokens"), other.result.get("tokens")
    same = None
    if mine and theirs:
        pairs = zip(mine, theirs, strict=False)
        equal = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(mine), len(theirs)))
        found["tokens_equal"], found["tokens"] = equal, max(len(mine), len(theirs))
        same = equal == found["tokens"]
    error = _error(reference.result, other.result)
    if error is None:
        found["agrees"] = same
    else:
        found["error"] = error if math.isfinite(error) else None
        exact = tolerance == TOLERANCES["float32"]
        found["agrees"] = error <= tolerance and (same is not False or not exact)
    return found


def _tolerance(header: Header) -> float:
    """Of the coarsest among the weights' dtype, their bits where quantised, and the KV cache's."""
    layouts = (header.model.get("quantization") or {}).get("layouts", {})
    bits = {"w4": "int4", "w8": "int8"}
    dtypes = [header.model.get("dtype"), header.model.get("kv_dtype")]
    dtypes += [bits.get(name[:2]) for name in layouts]
    return max(TOLERANCES.get(str(dtype), TOLERANCES["float32"]) for dtype in dtypes)


def _error(one: dict[str, Any], other: dict[str, Any]) -> float | None:
    for output in ("logits", "hidden"):
        mine, theirs = one.get(output), other.get(output)
        if not mine or not theirs:
            continue
        if len(mine) != len(theirs):
            return math.inf
        if not all(map(math.isfinite, [*mine, *theirs])):
            return math.inf
        worst: float = max(abs(a - b) for a, b in zip(mine, theirs, strict=True))
        return worst / float(max(map(abs, mine)) or 1)
    return None

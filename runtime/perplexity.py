"""Perplexity of a decoder's package on text, in sliding windows.

As in Hugging Face's guide "Perplexity of fixed-length models": a window of `window` tokens moves on
by `stride`, and scores the tokens that no window before it has scored. So every token but the first
of a document is scored once, and after the first window each has at least `window - stride + 1`
tokens before it. The guide counts the last token that is scored as part of its window: what it
calls `max_length` is `window + 1` here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import BasePackage
from .errors import IngotError

_CHUNK = 32  # tokens whose logits are held at once: a row is as long as the vocabulary


@dataclass(frozen=True)
class Document:
    """Token ids, of which all but the first are scored, and the bytes of text these stand for."""

    ids: list[int]
    bytes: int


@dataclass(frozen=True)
class Window:
    """The model is fed `tokens`; `targets` are what follows each of the last `len(targets)`."""

    tokens: list[int]
    targets: list[int]


def document(package: BasePackage, text: str, limit: int | None = None) -> Document:
    """Tokenise, with the special tokens that the tokenizer adds; score at most `limit` tokens.

    Bytes are those of the text in UTF-8 from the end of the first token, which is not scored, to
    the end of the last: all of the text if the tokenizer begins with a special token.
    """
    encoding = package.tokenizer.encode(text)
    ids, offsets = encoding.ids, encoding.offsets
    kept = len(ids) if limit is None else min(limit + 1, len(ids))
    begin = offsets[0][1] if ids else 0
    end = len(text) if kept == len(ids) else offsets[kept - 1][1]
    return Document(ids[:kept], len(text[begin:end].encode()))


def windows(ids: Sequence[int], window: int, stride: int) -> Iterator[Window]:
    """Score `ids[1:]`, each once; `1 <= stride <= window`."""
    begin, scored = 0, 1  # ids[:scored] need no score any more
    while scored < len(ids):
        end = min(begin + window, len(ids) - 1)
        yield Window(list(ids[begin:end]), list(ids[scored : end + 1]))
        begin, scored = begin + stride, end + 1


def negative_log_likelihood(package: BasePackage, over: Iterable[Window]) -> float:
    """Of all the windows' targets together, in nats."""
    total = 0.0
    with package.session() as session:
        for window in over:
            session.reset()
            total -= float(session.score(window.tokens, window.targets).sum())
    return total


def exponential(mean: float, what: str) -> float:
    """exp(mean). Raises IngotError where a broken model makes that no number."""
    with np.errstate(over="ignore"):
        value = float(np.exp(mean))
    if not np.isfinite(value):
        raise IngotError(f"the loss a {what} is {mean:.6g} nats: the package is no language model")
    return value


def divergence(
    package: BasePackage, reference: BasePackage, over: Iterable[Window]
) -> dict[str, float]:
    """How far a package's next-token distributions are from a reference's, over the windows.

    `mean_kl` is the mean over targets of KL(reference || package) in nats, `top1_agreement` the
    share of them before which both find the same token likeliest. Windows are fed in chunks: a
    model whose rotary embedding changes with the prompt's length (longrope) sees each chunk's end.
    """
    kl, agreed, count = 0.0, 0, 0
    with package.session() as session, reference.session() as other:
        for window in over:
            session.reset()
            other.reset()
            skip = len(window.tokens) - len(window.targets)
            for begin in range(0, len(window.tokens), _CHUNK):
                tokens = window.tokens[begin : begin + _CHUNK]
                ours, theirs = (
                    _log_softmax(s.logits(tokens)[max(skip - begin, 0) :]) for s in (session, other)
                )
                kl += float((np.exp(theirs) * (theirs - ours)).sum())
                agreed += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
            count += len(window.targets)
    return {"mean_kl": kl / count, "top1_agreement": agreed / count}


def _log_softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of each row, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: np.ndarray[Any, Any] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result

"""A session on an ONNX model: its tokens' keys and values are arrays, grown by every step."""

from __future__ import annotations

import operator
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .base_session import BaseSession, Piece, Sampling, Stats
from .errors import BadInput
from .sampling import Sampler
from .text import Utf8Stream

if TYPE_CHECKING:
    from .onnx_backend import OnnxPackage

Array = np.ndarray[Any, Any]


class OnnxSession(BaseSession):
    """On an ONNX model; `OnnxPackage.session()` makes one. Steps run in the caller's thread."""

    package: OnnxPackage

    def __init__(self, package: OnnxPackage) -> None:
        self.package = package
        self.stats = None
        self._outputs = [fact["name"] for fact in package.manifest["graph"]["outputs"]]
        present = self._outputs[1:]
        self._past = [f"past_key_values.{name.removeprefix('present.')}" for name in present]
        self._busy = self._closed = False
        self._length = 0
        self._pending: int | None = None
        self._cache = self._empty_cache()

    def _empty_cache(self) -> list[Array]:
        model = self.package.manifest["model"]
        empty = np.empty((1, model["num_kv_heads"], 0, model["head_dim"]), np.float32)
        return [empty] * len(self._past)

    def _start(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        return self._pieces(_ids(prompt), sampling, Sampler(sampling))

    def _pieces(self, prompt: list[int], sampling: Sampling, sampler: Sampler) -> Iterator[Piece]:
        self._check(prompt, sampling.max_new_tokens)
        text = Utf8Stream()
        self._busy = True
        try:
            times = [time.perf_counter()]
            for token in self._tokens(prompt, sampling, sampler):
                times.append(time.perf_counter())
                yield Piece(token, text.push(self.package.token_bytes(token)))
                if self._closed:
                    return
            begun, first = times[0], times[min(1, len(times) - 1)]
            self.stats = Stats(len(prompt), len(times) - 1, first - begun, times[-1] - first)
            if rest := text.flush():
                yield Piece(-1, rest)
        finally:
            self._busy = False

    def _tokens(self, prompt: list[int], sampling: Sampling, sampler: Sampler) -> Iterator[int]:
        """The last token made waits outside the cache, where the next call finds it."""
        eos = () if sampling.ignore_eos else self.package.manifest["generation"]["eos_token_ids"]
        stops, fed = {*eos, *sampling.stop_tokens}, prompt
        for _ in range(sampling.max_new_tokens):
            (logits,) = self.step(fed, [-1])
            token = sampler.sample(logits)
            if token in stops:
                return
            self._pending, fed = token, []
            yield token

    def logits(self, tokens: Sequence[int]) -> Array:
        self._check(ids := _ids(tokens), 0)
        return self.step(ids, range(-len(ids), 0))

    def score(self, tokens: Sequence[int], targets: Sequence[int]) -> Array:
        ids, wanted = _ids(tokens), _ids(targets)
        vocab_size = self.package.manifest["model"]["vocab_size"]
        if not 1 <= len(wanted) <= len(ids):
            raise BadInput(
                f"{len(wanted)} targets for {len(ids)} tokens; give at least one, and at most one"
                " a token"
            )
        for target in wanted:
            if not 0 <= target < vocab_size:
                raise BadInput(
                    f"target {target} is out of range; the model has ids 0 to {vocab_size - 1}"
                )
        self._check(ids, 0)
        rows = self.step(ids, range(-len(wanted), 0)).astype(np.float64)
        rows -= rows.max(-1, keepdims=True)
        scores: Array = rows[np.arange(len(wanted)), wanted] - np.log(np.exp(rows).sum(-1))
        return scores

    def step(self, tokens: Sequence[int], rows: Sequence[int]) -> Array:
        """Append tokens, unchecked; logits after those of `rows`, float32 [rows, vocab_size].

        rows: counted from the end, -1 the last. On the CPU nothing is copied between two steps: the
        arrays that ONNX Runtime makes are numpy's.
        """
        fed = [*([] if self._pending is None else [self._pending]), *tokens]
        inputs = {"input_ids": np.array([fed], np.int64), "logit_rows": np.array(rows, np.int64)}
        inputs |= zip(self._past, self._cache, strict=True)
        logits, *self._cache = self.package.runtime.run(self._outputs, inputs)
        self._length += len(fed)
        self._pending = None
        found: Array = logits[0]
        return found

    @property
    def length(self) -> int:
        self._check_open()
        return self._length + (self._pending is not None)

    def reset(self) -> None:
        self._check_open()
        self._cache, self._length, self._pending = self._empty_cache(), 0, None

    def close(self) -> None:
        self._cache = []
        self._closed = True

    def _check(self, tokens: list[int], new: int) -> None:
        from .onnx_backend import check_ids

        self._check_open()
        if self._busy:
            raise BadInput(
                "the session is busy with another call; wait for its end, or make a second session"
            )
        if not tokens:
            raise BadInput("the prompt is empty; give at least one token")
        model = self.package.manifest["model"]
        check_ids(tokens, model["vocab_size"])
        total = self.length + len(tokens)
        if total + new > model["max_seq_len"]:
            more = f", and {new} new ones" if new else ""
            raise BadInput(
                f"the prompt is too long: {total} tokens with what the session holds{more}, where"
                f" the model takes {model['max_seq_len']} in all; shorten it, ask for fewer, or"
                " export with a larger --max-seq-len"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise BadInput("the session is closed; make another one")


def _ids(tokens: Sequence[int]) -> list[int]:
    """Raises BadInput for what is no integer of 64 bits."""
    try:
        ids = [operator.index(token) for token in tokens]
    except TypeError as error:
        raise BadInput(f"token ids must be integers of 64 bits: {error}") from error
    return ids

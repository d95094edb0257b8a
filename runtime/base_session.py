"""What sessions share, whatever runs them: how a generation is asked for, and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

    import numpy as np

    from .base import BasePackage


@dataclass(frozen=True)
class Piece:
    """One generated token and the text that it completed, which may be empty."""

    token: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Stats:
    """Of one generation: times in seconds, prefill up to the first token."""

    prompt_tokens: int
    new_tokens: int
    prefill_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Sampling:
    """What a generation asks, as yet unchecked. temperature 0: greedy; top_k 0 and top_p 1: off."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int = 0
    ignore_eos: bool = False
    stop_tokens: Sequence[int] = ()


class BaseSession(ABC):
    """Made by `BasePackage.session()`. Serves one call at a time; close it, or use it as a context.

    Closing ends a generation in progress: its iterator stops.
    stats: of the last finished generation.
    """

    package: BasePackage
    stats: Stats | None

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int = 256,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        ignore_eos: bool = False,
        stop_tokens: Sequence[int] = (),
    ) -> Iterator[Piece]:
        """Append the prompt and yield what the model writes, as it writes it.

        What is not given is as the package's generation defaults say: greedy unless they sample.
        Closing the iterator stops the generation; the session then holds the prompt and what was
        taken from the iterator. Raises BadInput for a token out of range or a prompt too long,
        NoSpace when the KV cache is full, maybe in the middle: then the same holds.
        """
        defaults = self.package.manifest["generation"]
        if temperature is None:
            temperature = defaults["temperature"] if defaults["do_sample"] else 0.0
        sampling = Sampling(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=defaults["top_k"] if top_k is None else top_k,
            top_p=defaults["top_p"] if top_p is None else top_p,
            seed=seed,
            ignore_eos=ignore_eos,
            stop_tokens=stop_tokens,
        )
        return self._start(
            self.package.encode(prompt) if isinstance(prompt, str) else prompt, sampling
        )

    @abstractmethod
    def _start(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        """Raises BadInput for what is no token id or no way of sampling."""

    @abstractmethod
    def logits(self, tokens: Sequence[int]) -> np.ndarray[Any, Any]:
        """Append tokens; the logits after each of them, float32 [len(tokens), vocab_size]."""

    @abstractmethod
    def score(self, tokens: Sequence[int], targets: Sequence[int]) -> np.ndarray[Any, Any]:
        """Append tokens; the log-probability of what follows the last `len(targets)` of them.

        `targets[-1]` is scored after `tokens[-1]`, `targets[-2]` after `tokens[-2]`, and so on.
        Natural logarithms, float64 [len(targets)]. Raises BadInput for a token or target out of
        range, for more targets than tokens or none, and for more tokens than the package takes.
        """

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens that the session holds."""

    @abstractmethod
    def reset(self) -> None:
        """Forget them."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""A session: one conversation with a package, its tokens kept in the KV cache."""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import capi
from .text import Utf8Stream

if TYPE_CHECKING:
    import numpy as np

    from .package import Package


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


def _ids(tokens: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(tokens))(*tokens)


class Session:
    """Made by `Package.session()`. Serves one call at a time; close it, or use it as a context."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.stats: Stats | None = None  # of the last finished generation
        self._handle = ctypes.c_void_p()
        capi.check(capi.library().ingot_session_create(package.handle, ctypes.byref(self._handle)))

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
        Closing the iterator stops the generation. Raises BadInput for a token out of range or a
        prompt too long, NoSpace when the KV cache is full.
        """
        defaults = self.package.manifest["generation"]
        if temperature is None:
            temperature = defaults["temperature"] if defaults["do_sample"] else 0.0
        stops = _ids(stop_tokens)
        sampling = capi.Sampling(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=defaults["top_k"] if top_k is None else top_k,
            top_p=defaults["top_p"] if top_p is None else top_p,
            seed=seed,
            ignore_eos=ignore_eos,
            stop_tokens=stops,
            stop_count=len(stop_tokens),
        )
        tokens = self.package.encode(prompt) if isinstance(prompt, str) else list(prompt)
        return self._pieces(tokens, sampling)

    def _pieces(self, tokens: list[int], sampling: capi.Sampling) -> Iterator[Piece]:
        """The C call blocks, so it has a thread; what it makes comes through a queue."""
        made: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        stopped = threading.Event()

        def take(token: int, _: Any) -> int:
            made.put(token)
            return stopped.is_set()

        def call() -> None:
            try:
                self._call(tokens, sampling, capi.TokenCallback(take))
                made.put(None)
            except BaseException as error:
                made.put(error)

        thread = threading.Thread(target=call, name="ingot-generate", daemon=True)
        thread.start()
        text = Utf8Stream()
        try:
            while (item := made.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield Piece(item, text.push(self.package.token_bytes(item)))
            if rest := text.flush():
                yield Piece(-1, rest)
        finally:
            stopped.set()
            thread.join()

    def _call(self, tokens: list[int], sampling: capi.Sampling, take: Any) -> None:
        stats = capi.Stats()
        status = capi.library().ingot_session_generate(
            self._handle,
            _ids(tokens),
            len(tokens),
            ctypes.byref(sampling),
            take,
            None,
            ctypes.byref(stats),
        )
        capi.check(status)
        self.stats = Stats(
            stats.prompt_tokens, stats.new_tokens, stats.prefill_seconds, stats.decode_seconds
        )

    def logits(self, tokens: Sequence[int]) -> np.ndarray[Any, Any]:
        """Append tokens; the logits after each of them, float32 [len(tokens), vocab_size]."""
        import numpy as np

        out = np.empty((len(tokens), self.package.manifest["model"]["vocab_size"]), np.float32)
        pointer = ctypes.c_void_p(out.ctypes.data)
        capi.check(
            capi.library().ingot_session_logits(self._handle, _ids(tokens), len(tokens), pointer)
        )
        return out

    @property
    def length(self) -> int:
        """Tokens that the session holds."""
        return int(capi.library().ingot_session_length(self._handle))

    def reset(self) -> None:
        """Forget them."""
        capi.library().ingot_session_reset(self._handle)

    def close(self) -> None:
        if self._handle:
            capi.library().ingot_session_close(self._handle)
            self._handle = ctypes.c_void_p()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

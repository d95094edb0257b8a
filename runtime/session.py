"""A session: one conversation with a package, its tokens kept in the KV cache."""

from __future__ import annotations

import atexit
import ctypes
import queue
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import capi
from .errors import BadInput
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


def chosen(
    defaults: Mapping[str, Any], temperature: float | None, top_k: int | None, top_p: float | None
) -> dict[str, Any]:
    """How to sample: what is not given is as the manifest's `generation` says, greedy unless it
    samples."""
    if temperature is None:
        temperature = defaults["temperature"] if defaults["do_sample"] else 0.0
    return {
        "temperature": temperature,
        "top_k": defaults["top_k"] if top_k is None else top_k,
        "top_p": defaults["top_p"] if top_p is None else top_p,
    }


class Session:
    """Made by `Package.session()`. Serves one call at a time; close it, or use it as a context.

    Closing ends a generation in progress: its iterator gives what was made, then stops.
    """

    def __init__(self, package: Package) -> None:
        self.package = package
        self.stats: Stats | None = None  # of the last finished generation
        self._running: list[_Generation] = []
        self._created = ctypes.c_void_p()
        capi.check(capi.library().ingot_session_create(package.handle, ctypes.byref(self._created)))

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
        sampling = capi.Sampling(
            max_new_tokens=max_new_tokens,
            **chosen(self.package.manifest["generation"], temperature, top_k, top_p),
            seed=seed,
            ignore_eos=ignore_eos,
            stop_tokens=capi.int64_array(stop_tokens),
            stop_count=len(stop_tokens),
        )
        tokens = self.package.encode(prompt) if isinstance(prompt, str) else prompt
        return self._pieces(capi.int64_array(tokens), sampling)

    def _pieces(self, tokens: ctypes.Array[Any], sampling: capi.Sampling) -> Iterator[Piece]:
        generation = _Generation(self._handle, tokens, sampling)
        self._running.append(generation)
        text = Utf8Stream()
        try:
            for token in generation.tokens():
                yield Piece(token, text.push(self.package.token_bytes(token)))
            self.stats = generation.stats
            if rest := text.flush():
                yield Piece(-1, rest)
        finally:
            generation.stop()
            self._running.remove(generation)

    def logits(self, tokens: Sequence[int]) -> np.ndarray[Any, Any]:
        """Append tokens; the logits after each of them, float32 [len(tokens), vocab_size]."""
        import numpy as np

        out = np.empty((len(tokens), self.package.manifest["model"]["vocab_size"]), np.float32)
        ids, pointer = capi.int64_array(tokens), ctypes.c_void_p(out.ctypes.data)
        capi.check(capi.library().ingot_session_logits(self._handle, ids, len(ids), pointer))
        return out

    def score(self, tokens: Sequence[int], targets: Sequence[int]) -> np.ndarray[Any, Any]:
        """Append tokens; the log-probability of what follows the last `len(targets)` of them.

        `targets[-1]` is scored after `tokens[-1]`, `targets[-2]` after `tokens[-2]`, and so on.
        Natural logarithms, float64 [len(targets)]. Raises BadInput for a token or target out of
        range, for more targets than tokens or none, and for more tokens than the package takes.
        """
        import numpy as np

        out = np.empty(len(targets), np.float64)
        ids, wanted = capi.int64_array(tokens), capi.int64_array(targets)
        capi.check(
            capi.library().ingot_session_score(
                self._handle, ids, len(ids), wanted, len(wanted), ctypes.c_void_p(out.ctypes.data)
            )
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
        for generation in self._running:
            generation.stop()
        if self._created:
            capi.library().ingot_session_close(self._created)
            self._created = ctypes.c_void_p()

    @property
    def _handle(self) -> ctypes.c_void_p:
        if not self._created:
            raise BadInput("the session is closed; make another one")
        return self._created

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_created"):
            self.close()


_generations: weakref.WeakSet[_Generation] = weakref.WeakSet()


@atexit.register
def _stop_generations() -> None:
    """A process must not end under a step: libraries would be taken down while it runs."""
    for generation in list(_generations):
        generation.stop()


class _Generation:
    """One call of the library, which blocks, in a thread; its tokens come through a queue."""

    def __init__(
        self, session: ctypes.c_void_p, tokens: ctypes.Array[Any], sampling: capi.Sampling
    ) -> None:
        self.stats: Stats | None = None  # at its end
        self._made: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        arguments = (session, tokens, sampling)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        _generations.add(self)
        self._thread.start()

    def tokens(self) -> Iterator[int]:
        while (item := self._made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def stop(self) -> None:
        """Ask the library to stop and wait until it has."""
        self._stopped.set()
        self._thread.join()

    def _run(
        self, session: ctypes.c_void_p, tokens: ctypes.Array[Any], sampling: capi.Sampling
    ) -> None:
        try:
            self.stats = self._generate(session, tokens, sampling)
            self._made.put(None)
        except BaseException as error:
            self._made.put(error)

    def _generate(
        self, session: ctypes.c_void_p, tokens: ctypes.Array[Any], sampling: capi.Sampling
    ) -> Stats:
        def take(token: int, _: Any) -> int:
            self._made.put(token)
            return self._stopped.is_set()

        stats = capi.Stats()
        capi.check(
            capi.library().ingot_session_generate(
                session,
                tokens,
                len(tokens),
                ctypes.byref(sampling),
                capi.TokenCallback(take),
                None,
                ctypes.byref(stats),
            )
        )
        return Stats(
            stats.prompt_tokens, stats.new_tokens, stats.prefill_seconds, stats.decode_seconds
        )

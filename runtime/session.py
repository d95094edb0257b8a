"""A session: one conversation with a package, its tokens kept in the KV cache."""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

    Closing ends a generation in progress: its iterator stops.
    """

    def __init__(self, package: Package) -> None:
        self.package = package
        self.stats: Stats | None = None  # of the last finished generation
        self._running: list[_Generation] = []
        self._process = os.getpid()
        self._calls = 0  # of the library, that use `_created`
        self._changed = threading.Condition()  # guards both
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
        Closing the iterator stops the generation; the session then holds the prompt and what was
        taken from the iterator. Raises BadInput for a token out of range or a prompt too long,
        NoSpace when the KV cache is full, maybe in the middle: then the same holds.
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
        generation = _Generation(self, tokens, sampling)
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
        with self.calling() as handle:
            capi.finished(capi.library().ingot_session_logits(handle, ids, len(ids), pointer))
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
        pointer = ctypes.c_void_p(out.ctypes.data)
        with self.calling() as handle:
            capi.finished(
                capi.library().ingot_session_score(
                    handle, ids, len(ids), wanted, len(wanted), pointer
                )
            )
        return out

    @property
    def length(self) -> int:
        """Tokens that the session holds."""
        with self.calling() as handle:
            return int(capi.library().ingot_session_length(handle))

    def reset(self) -> None:
        """Forget them. A generation or another thread's call in progress is stopped."""
        with self.calling() as handle:
            self._ask_to_stop()
            capi.library().ingot_session_reset(handle)

    def close(self) -> None:
        """End it, also from another thread than those that use it: their calls are stopped."""
        if os.getpid() != self._process:  # where locks may be held by threads that do not exist
            return
        with self._changed:
            created, self._created = self._created, ctypes.c_void_p()
        if not created:
            return
        self._ask_to_stop()
        capi.library().ingot_session_reset(created)  # sooner than the next token
        with self._changed:
            self._changed.wait_for(lambda: self._calls == 0)
        capi.library().ingot_session_close(created)

    def _ask_to_stop(self) -> None:
        for generation in list(self._running):
            generation.ask_to_stop()

    @contextmanager
    def calling(self) -> Iterator[ctypes.c_void_p]:
        """The library's session, which `close` leaves alone until the call is over."""
        refuse_in_child(self._process)
        with self._changed:
            if not self._created:
                raise BadInput("the session is closed; make another one")
            created, self._calls = self._created, self._calls + 1
        try:
            yield created
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_created"):
            self.close()


def refuse_in_child(process: int) -> None:
    """Raises BadInput where the threads that did the work of `process` do not exist."""
    if os.getpid() != process:
        raise BadInput("this package was opened before fork(); open it again in the child process")


_generations: weakref.WeakSet[_Generation] = weakref.WeakSet()


@atexit.register
def _stop_generations() -> None:
    """A process must not end under a step: libraries would be taken down while it runs."""
    for generation in list(_generations):
        generation.stop()


class _Generation:
    """One call of the library, which blocks, in a thread; its tokens come through a queue."""

    def __init__(
        self, session: Session, tokens: ctypes.Array[Any], sampling: capi.Sampling
    ) -> None:
        self._process = os.getpid()
        self.stats: Stats | None = None  # at its end
        self._made: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._wanted = threading.Semaphore(0)  # released for each token but the first
        self._stopped = False
        arguments = (session, tokens, sampling)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        _generations.add(self)
        self._thread.start()

    def tokens(self) -> Iterator[int]:
        while (item := self._next()) is not None:
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    del item  # else it and this frame keep each other, the session and the package
            yield item
            self._wanted.release()

    def _next(self) -> int | BaseException | None:
        refuse_in_child(self._process)
        return self._made.get()

    def ask_to_stop(self) -> None:
        self._stopped = True
        self._wanted.release()

    def stop(self) -> None:
        """Ask the library to stop and wait until it has."""
        self.ask_to_stop()
        self._thread.join()

    def _run(self, session: Session, tokens: ctypes.Array[Any], sampling: capi.Sampling) -> None:
        try:
            with session.calling() as handle:
                self.stats = self._generate(handle, tokens, sampling)
            self._made.put(None)
        except BaseException as error:
            self._made.put(error)

    def _generate(
        self, session: ctypes.c_void_p, tokens: ctypes.Array[Any], sampling: capi.Sampling
    ) -> Stats:
        def take(token: int, _: Any) -> int:
            self._made.put(token)
            self._wanted.acquire()  # so that a session holds what its reader has seen, no more
            return self._stopped

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

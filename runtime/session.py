"""A session: one conversation with a package, its tokens kept in the KV cache."""

from __future__ import annotations

import atexit
import ctypes
import queue
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import capi
from .base_session import BaseSession, Piece, Sampling, Stats
from .errors import BadInput
from .text import Utf8Stream

if TYPE_CHECKING:
    import numpy as np

    from .package import Package


class Session(BaseSession):
    """On a package. `Package.session()` makes one."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.stats = None
        self._running: list[_Generation] = []
        self._created = ctypes.c_void_p()
        capi.check(capi.library().ingot_session_create(package.handle, ctypes.byref(self._created)))

    def _start(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        stops = capi.int64_array(sampling.stop_tokens)
        fields = vars(sampling) | {"stop_tokens": stops, "stop_count": len(stops)}
        return self._pieces(capi.int64_array(prompt), capi.Sampling(**fields))

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
        import numpy as np

        out = np.empty((len(tokens), self.package.manifest["model"]["vocab_size"]), np.float32)
        ids, pointer = capi.int64_array(tokens), ctypes.c_void_p(out.ctypes.data)
        capi.check(capi.library().ingot_session_logits(self._handle, ids, len(ids), pointer))
        return out

    def score(self, tokens: Sequence[int], targets: Sequence[int]) -> np.ndarray[Any, Any]:
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
        return int(capi.library().ingot_session_length(self._handle))

    def reset(self) -> None:
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

"""A session: one conversation with a package, its tokens kept in the KV cache."""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import capi
from .base_session import BaseSession, Piece, Sampling, Stats
from .errors import BadInput
from .text import Utf8Stream

if TYPE_CHECKING:
    import numpy as np

    from .package import Package


class Session(BaseSession):
    """On a package. `Package.session()` makes one.

    Resetting and closing stop what is in progress, of other threads too.
    """

    def __init__(self, package: Package) -> None:
        self.package = package
        self.stats = None
        self._running: list[_Generation] = []
        self._process = os.getpid()
        self._calls = 0  # of the library, that use `_created`
        self._changed = threading.Condition()  # guards both
        self._created = ctypes.c_void_p()
        capi.check(capi.library().ingot_session_create(package.handle, ctypes.byref(self._created)))

    def _start(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        stops = capi.int64_array(sampling.stop_tokens)
        fields = vars(sampling) | {"stop_tokens": stops, "stop_count": len(stops)}
        return self._pieces(capi.int64_array(prompt), capi.Sampling(**fields))

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
        import numpy as np

        out = np.empty((len(tokens), self.package.manifest["model"]["vocab_size"]), np.float32)
        ids, pointer = capi.int64_array(tokens), ctypes.c_void_p(out.ctypes.data)
        with self.calling() as handle:
            capi.finished(capi.library().ingot_session_logits(handle, ids, len(ids), pointer))
        return out

    def score(self, tokens: Sequence[int], targets: Sequence[int]) -> np.ndarray[Any, Any]:
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
        with self.calling() as handle:
            return int(capi.library().ingot_session_length(handle))

    def reset(self) -> None:
        with self.calling() as handle:
            self._ask_to_stop()
            capi.library().ingot_session_reset(handle)

    def close(self) -> None:
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
        self._wanted: queue.SimpleQueue[None] = queue.SimpleQueue()  # for each token but the first
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
            self._wanted.put(None)

    def _next(self) -> int | BaseException | None:
        refuse_in_child(self._process)
        capi.library().ingot_end_openmp_team()  # this thread's, which torch may have made: we wait
        return self._made.get()

    def ask_to_stop(self) -> None:
        self._stopped = True
        self._wanted.put(None)

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
            self._wanted.get()  # so that a session holds what its reader has seen, no more
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

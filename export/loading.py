"""Loading beside: weights are read, packed and written by a thread while the graph is compiled.

The graph depends on the weights' shapes alone, but for the values of tiny tensors (cache.py). So it
is made from a stand-in, a model without the content of what is large (models.Plan.stand_in).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from ..models import Keep, Model
from ..profiling.record import Recorder

# Seconds that tracing may hold the interpreter while the thread wants it, which it does often.
_SWITCH = 0.001


class _Stopped(Exception):
    """Nobody wants the model any more."""


class Loading:
    """A model that `load` makes in a thread of its own; where the context ends early it stops."""

    def __init__(self, load: Callable[[Keep], Model], keep: Keep, recorder: Recorder) -> None:
        self._load, self._keep, self._recorder = load, keep, recorder
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Loading:
        self._switch = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH)
        self._model = self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown()
        sys.setswitchinterval(self._switch)

    def check(self) -> None:
        """Raises what loading raised, if it did already."""
        if self._model.done():
            self._model.result()

    def result(self) -> Model:
        """Waits. Raises what loading raised."""
        return self._model.result()

    def _run(self) -> Model:
        begun = time.perf_counter()
        model = self._load(self._keep_if_wanted)
        self._recorder.beside("load checkpoint", begun, time.thread_time())
        return model

    def _keep_if_wanted(self, tensor: Tensor) -> Tensor:
        if self._ended.is_set():
            raise _Stopped
        return self._keep(tensor)

"""Engines: ways of running a model, each in a process of its own, so that one's libraries, threads
and memory stay out of another's measurement.

An engine's module ends with `serve(MyEngine)` (child.py); the comparison starts it as a `Process`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from .. import process
from ..child import Child
from .errors import ProfileError
from .steps import times
from .trace import Event, Header, Trace


@dataclass(frozen=True)
class Request:
    """What every engine is asked alike: token ids, and how many to generate greedily after them.

    An encoder gets new_tokens 0. threads: 0 means the cores that this process may use.
    """

    tokens: tuple[int, ...]
    new_tokens: int
    threads: int = 0


class Engine(Protocol):
    """Made from what follows the colon of "eager:CHECKPOINT", and from options, if it takes any;
    loading is timed by itself."""

    def run(self, request: Request, traced: bool) -> Trace:
        """One run from an empty cache. Its header's `runs` holds this one's time.

        Untraced, `events` are the steps alone and nothing slows the run. The first token of the
        result follows the prompt; stop ids do not stop.
        """
        ...


def header_of_run(
    header: Header, request: Request, result: dict[str, Any], steps: list[Event]
) -> Header:
    """An engine's header, which says what it is, with what it has just been asked and answered.

    The first run completes `header.start_up`.
    """
    measured = times(steps)
    if "first_token_ms" not in header.start_up:
        until = sum(header.start_up.values())
        header.start_up["first_token_ms"] = until + measured["prefill_ms"]
    return replace(
        header,
        request={"tokens": list(request.tokens), "new_tokens": request.new_tokens},
        result=result,
        runs=[measured],
        memory={"peak_rss_mb": process.peak_rss_mb()},
    )


class Process(Child):
    """An engine in a process of its own. Raises ProfileError with the engine's own sentence."""

    def __init__(self, module: str, source: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(module, source, source, ProfileError, options)

    def run(self, request: Request, traced: bool) -> Trace:
        trace: Trace = self.call("run", request, traced)
        return trace

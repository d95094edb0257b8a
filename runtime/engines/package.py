"""`PACKAGE`: the lean runtime, without torch.

Traced by the runtime itself: its events are those of the kernels and ops that the package calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from ... import __version__
from ...child import serve
from ...profiling.calls import calls_of
from ...profiling.engine import Request
from ...profiling.runs.join import join
from ...profiling.steps import BLOCK_SIZE, now_us, sizes, step_event
from ...profiling.trace import Event, Header, Trace
from .. import tracing
from ..inspect_command import describe
from ..package import Package
from .common import FileEngine

_LOGIT_ROWS = 16  # at once: a row is as long as the vocabulary


class PackageEngine(FileEngine):
    name = "ingot"
    package: Package

    def __init__(self, path: str, **checks: Any) -> None:
        """checks: `verify` and `key` of `ingot.load`."""
        self.checks = checks
        super().__init__(path)
        self.compile_record = describe(Path(self.path))["report"]
        self.header.model = self._model()
        self.header.aliases = self.compile_record["facts"].get("aliases", {})
        self.header.environment = {"ingot": __version__}

    def open(self) -> None:
        self.package = Package(self.path, threads=self.threads, **self.checks)

    def run(self, request: Request, traced: bool) -> Trace:
        """With what would disturb the run itself, and its memory: logits and ceilings."""
        trace = super().run(request, traced)
        if self.kind == "decoder":
            trace.header.result["logits"] = self._logits(request.tokens)
        if traced:
            trace.header.ceilings = tracing.ceilings(self.package, self.threads)
        return trace

    def record(self, request: Request, traced: bool) -> tuple[Trace, list[Event], dict[str, Any]]:
        run = partial(self._generate if self.kind == "decoder" else self._encode, request)
        if not traced:
            steps, result = run()
            return Trace(Header(), steps), steps, result
        (steps, result), recorded = tracing.traced(run)
        calls = calls_of(self.compile_record, self.path, self.package.variant)
        return join(recorded, calls), steps, result

    def _model(self) -> dict[str, Any]:
        """The card, and how weights and cache are held: outputs are as exact as those allow."""
        manifest = self.package.manifest
        kv_dtype = manifest.get("kv_cache", {}).get("dtype")
        exactness = {"quantization": manifest["quantization"], "kv_dtype": kv_dtype}
        card: dict[str, Any] = manifest["model"]
        return card | exactness

    def _generate(self, request: Request) -> tuple[list[Event], dict[str, Any]]:
        """Steps, seen from outside: the first gives the first token."""
        made, moments = [], [now_us()]
        with self.package.session() as session:
            for piece in session.generate(
                request.tokens,
                max_new_tokens=max(request.new_tokens, 1),
                temperature=0,
                ignore_eos=True,
            ):
                if piece.token >= 0:
                    made.append(piece.token)
                    moments.append(now_us())
        return _steps(len(request.tokens), moments), {"tokens": made[: request.new_tokens]}

    def _encode(self, request: Request) -> tuple[list[Event], dict[str, Any]]:
        count, begun = len(request.tokens), now_us()
        hidden = self.package.run(
            tokens=list(request.tokens),
            token_type_ids=[0] * count,
            positions=list(range(count)),
            query_start=[0, count],
        )["hidden"]
        step = step_event(0, begun, now_us(), sizes(count, causal=False))
        return [step], {"hidden": hidden.ravel().tolist()}

    def _logits(self, tokens: tuple[int, ...]) -> list[float]:
        """After the last of them."""
        with self.package.session() as session:
            for start in range(0, len(tokens), _LOGIT_ROWS):
                rows = session.logits(tokens[start : start + _LOGIT_ROWS])
        last: list[float] = rows[-1].tolist()
        return last


def _steps(prompt: int, moments: Iterable[float]) -> list[Event]:
    """Step events between the moments at which there was nothing, one token, two tokens ..."""
    steps = []
    for number, (start, end) in enumerate(pairwise(moments)):
        new, past = (1, prompt + number - 1) if number else (prompt, 0)
        blocks = -(-(past + new) // BLOCK_SIZE)
        steps.append(step_event(number, start, end, sizes(new, past, blocks=blocks)))
    return steps


if __name__ == "__main__":
    serve(PackageEngine)

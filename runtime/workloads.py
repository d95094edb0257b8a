"""What a package is given to run when it is profiled: a prompt, texts, or random arrays."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..profiling.calls import evaluate
from .errors import BadInput
from .package import Package

_LETTER = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Outcome:
    """Of one run: `total_ms`, `prefill_ms`, `decode_ms`, and a trace header's `result`."""

    times: dict[str, float]
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """request: as a trace's header has it. sizes: the letters of a module's signature, chosen."""

    request: dict[str, Any]
    run: Callable[[], Outcome]
    sizes: Mapping[str, int] = field(default_factory=dict)


def generation(package: Package, tokens: Sequence[int], new_tokens: int) -> Workload:
    """Greedy, from an empty cache; stop ids do not stop. Raises BadInput."""
    if new_tokens < 2:
        raise BadInput("--new-tokens must be at least 2, so that there is a decode step")

    def run() -> Outcome:
        with package.session() as session:
            pieces = session.generate(
                tokens, max_new_tokens=new_tokens, temperature=0, ignore_eos=True
            )
            made = [piece.token for piece in pieces if piece.token >= 0]
            assert session.stats is not None
            prefill, decode = session.stats.prefill_seconds, session.stats.decode_seconds
        return Outcome(_times(prefill, decode), {"tokens": made})

    return Workload({"tokens": list(tokens), "new_tokens": new_tokens}, run)


def embedding(package: Package, texts: Sequence[str]) -> Workload:
    return Workload({"texts": list(texts)}, lambda: _timed(lambda: package.embed(texts)))


def encoding(package: Package, tokens: Sequence[int]) -> Workload:
    """One sequence through an encoder's graph, without pooling."""
    count = len(tokens)
    arrays = {
        "tokens": list(tokens),
        "token_type_ids": [0] * count,
        "positions": list(range(count)),
        "query_start": [0, count],
    }
    request = {"tokens": list(tokens), "new_tokens": 0}
    return Workload(request, lambda: _timed(lambda: package.run(**arrays)))


def random_arrays(package: Package, sizes: Mapping[str, int]) -> Workload:
    """Inputs as the manifest's signature wants them: floats normal, all else zero.

    sizes: of letters that vary; one that is not given is as small as it may be. Raises BadInput.
    """
    graph = package.manifest["graph"]
    shapes = {fact["name"]: [str(size) for size in fact["shape"]] for fact in graph["inputs"]}
    letters = {
        letter for shape in shapes.values() for size in shape for letter in _LETTER.findall(size)
    }
    if unknown := sorted(sizes.keys() - letters):
        known = ", ".join(sorted(letters)) or "none: all are fixed"
        raise BadInput(f"--size: no size is called {unknown[0]}; {package.path} has {known}")
    chosen = {letter: sizes.get(letter, graph["symbols"][letter][0]) for letter in sorted(letters)}
    random = np.random.default_rng(0)
    arrays = {}
    for fact in graph["inputs"]:
        shape = [round(evaluate(size, chosen)) for size in shapes[fact["name"]]]
        is_float = "float" in fact["dtype"]
        dtype = "float32" if fact["dtype"] == "bfloat16" else fact["dtype"]
        values = random.standard_normal(shape) if is_float else np.zeros(shape)
        arrays[fact["name"]] = values.astype(dtype)
    run = Workload({"sizes": chosen}, lambda: _timed(lambda: package.run(**arrays)), chosen)
    package.run(**arrays)  # refuses sizes that do not fit, by name
    return run


def parse_sizes(texts: Sequence[str]) -> dict[str, int]:
    """Of "T=128". Raises BadInput."""
    found = {}
    for text in texts:
        letter, _, number = text.partition("=")
        if not letter or not number.isdecimal():
            raise BadInput(f"--size '{text}' is no size; write it as T=128")
        found[letter] = int(number)
    return found


def _timed(run: Callable[[], Any]) -> Outcome:
    begun = time.perf_counter()
    run()
    return Outcome(_times(time.perf_counter() - begun, 0.0))


def _times(prefill: float, decode: float) -> dict[str, float]:
    """Of seconds."""
    return {
        "total_ms": (prefill + decode) * 1e3,
        "prefill_ms": prefill * 1e3,
        "decode_ms": decode * 1e3,
    }

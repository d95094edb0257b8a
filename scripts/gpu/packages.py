"""Whole packages on the GPU against the same on the CPU: one shape with the same made-up weights,
carried here for both (carried.py). It needs no torch.

    python -m gpu.packages bf16

Rows as lines of JSON, one for each thing that has to hold.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ingot.runtime import capi
from ingot.runtime.errors import BadInput, NoSpace
from ingot.runtime.package import Package
from ingot.runtime.prompts import made_up

from . import carried

Logits = np.ndarray[Any, np.dtype[np.float32]]
# Of a token's logits: what a GPU and a CPU, which round activations at other places, may be apart.
# CPUs that round them to bfloat16 and such that do not are 0.008; unrelated ones are 1.4.
_TOLERANCE = 0.05
_NEW = 40


class Wrong(Exception):
    """What does not hold."""


class Packages:
    """The two, and what they say of a prompt."""

    def __init__(self, gpu: Path, cpu: Path) -> None:
        self.path, self.gpu, self.cpu = gpu, Package(gpu), Package(cpu)

    def prompt(self, tokens: int) -> list[int]:
        return made_up(tokens, self.gpu.manifest["model"]["vocab_size"])

    def agrees(self, tokens: int) -> str:
        prompt = self.prompt(tokens)
        return compare(logits(self.gpu, prompt), logits(self.cpu, prompt))

    def generates(self, tokens: int) -> str:
        """Greedily: each token is the CPU's likeliest, or as good as that."""
        prompt = self.prompt(tokens)
        return self._as_good(prompt, generated(self.gpu, prompt))

    def _as_good(self, prompt: list[int], made: list[int]) -> str:
        expected = logits(self.cpu, prompt + made[:-1])[len(prompt) - 1 :]
        short = expected.max(1) - expected[np.arange(len(made)), made]
        worst = float((short / expected.std(1)).max())
        if len(made) != _NEW or worst > 4 * _TOLERANCE:
            raise Wrong(f"{len(made)} tokens, the worst {worst:.3f} deviations short of the best")
        return f"the worst is {worst:.3f} deviations short of the best"

    def replays(self) -> str:
        """A trace has every call run by itself; the tokens are those of graphs."""
        prompt, library = self.prompt(30), capi.library()
        replayed = [generated(self.gpu, prompt) for _ in range(2)]
        with tempfile.TemporaryDirectory() as folder:
            library.ingot_trace_start()
            alone = generated(self.gpu, prompt)
            capi.check(library.ingot_trace_write(os.fsencode(Path(folder) / "trace.json")))
        if replayed != [alone, alone]:
            raise Wrong(f"{alone} call by call, {replayed} as graphs")
        return "the same tokens"

    def shares(self) -> str:
        """Many sessions at once, whose steps are joined, of lengths on both sides of a bucket."""
        prompts = [self.prompt(tokens) for tokens in range(3, 300, 33)]
        made: dict[int, list[int]] = {}

        def call(index: int) -> None:
            made[index] = generated(self.gpu, prompts[index])

        callers = [threading.Thread(target=call, args=(i,)) for i in range(len(prompts))]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return [self._as_good(prompt, made[i]) for i, prompt in enumerate(prompts)][-1]

    def opens_anew(self) -> str:
        prompt = self.prompt(40)
        before = logits(self.gpu, prompt)
        del self.gpu
        self.gpu = Package(self.path)
        if not np.array_equal(logits(self.gpu, prompt), before):
            raise Wrong("other logits than before it was closed")
        return "the same logits"

    def refuses_what_does_not_fit(self) -> str:
        try:
            Package(self.path, kv_tokens=10**12)
        except NoSpace as error:
            logits(self.gpu, self.prompt(5))  # the other goes on
            return str(error)
        raise Wrong("a KV cache of 10^12 tokens was made")

    def refuses_a_fork(self) -> str:
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # where it hangs
            try:
                Package(self.path)
            except BadInput:
                os._exit(0)
            finally:
                os._exit(1)
        if status := os.waitpid(child, 0)[1]:
            raise Wrong(f"the child ended with status {status}")
        return "a sentence"


def logits(package: Package, prompt: Sequence[int]) -> Logits:
    with package.session() as session:
        return session.logits(prompt)


def generated(package: Package, prompt: Sequence[int]) -> list[int]:
    with package.session() as session:
        pieces = session.generate(prompt, max_new_tokens=_NEW, temperature=0, ignore_eos=True)
        return [piece.token for piece in pieces if piece.token >= 0]


def compare(found: Logits, expected: Logits) -> str:
    """Of each token the distance in the root of the mean square, as a share of the expected's."""
    apart = np.sqrt(np.square(found - expected).mean(1) / np.square(expected).mean(1))
    sentence = f"{apart.max():.4f} apart at most, {np.median(apart):.4f} in the middle"
    if not apart.max() < _TOLERANCE:  # nor NaN
        raise Wrong(f"{sentence}; the first is token {int(np.argmax(~(apart < _TOLERANCE)))}")
    return sentence


def checks(packages: Packages) -> dict[str, Callable[[], str]]:
    return {
        "logits of 1 token": lambda: packages.agrees(1),
        "logits of 40 tokens": lambda: packages.agrees(40),
        "logits of 600 tokens": lambda: packages.agrees(600),
        "greedy after 20 tokens": lambda: packages.generates(20),
        "greedy after 600 tokens": lambda: packages.generates(600),
        "graphs": packages.replays,
        "sessions at once": packages.shares,
        "opened anew": packages.opens_anew,
        "no room": packages.refuses_what_does_not_fit,
        "forked": packages.refuses_a_fork,
    }


def rows(recipe: str, shape: str = carried.CHECKED) -> Iterator[dict[str, Any]]:
    name = f"{shape} {recipe}"
    begun = time.perf_counter()
    packages = Packages(*(carried.whole(shape, recipe, on) for on in ("cuda", "cpu")))
    yield {"name": f"{name} opened", "passed": f"in {time.perf_counter() - begun:.1f} s"}
    for what, check in checks(packages).items():
        try:
            yield {"name": f"{name} {what}", "passed": check()}
        except Exception as error:  # the others are still worth having
            yield {"name": f"{name} {what}", "failed": f"{type(error).__name__}: {error}"}


def main() -> None:
    for row in rows(*sys.argv[1:]):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

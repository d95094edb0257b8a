"""What the engines that torch runs share: the model they are pointed at, greedy decoding, headers.

A source is CHECKPOINT or CHECKPOINT@OPTIONS: a dtype of the weights (float32 is the default), a
recipe of quant/recipe.py, or both with a comma between: demo/checkpoint@bfloat16,int8.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import models, process, quant
from ...profiling.engine import Request, header_of_run
from ...profiling.errors import ProfileError
from ...profiling.steps import Steps, sizes
from ...profiling.trace import Event, Header, Trace
from ..contracts import BLOCK_SIZE, Contract, of_checkpoint

# New tokens and how many lie before them -> the logits after the last, or an encoder's hidden.
Forward = Callable[[list[int], int], Tensor]


class Source:
    """A checkpoint and how its weights are to be held. Raises CheckpointError or ProfileError."""

    def __init__(self, text: str) -> None:
        checkpoint, _, options = text.partition("@")
        self.checkpoint, self.dtype = Path(checkpoint), "float32"
        self.recipe: quant.Recipe | None = None
        for option in filter(None, options.split(",")):
            if option in models.DTYPES:
                self.dtype = option
            else:
                self.recipe = quant.find(option)
        self.plan = models.plan(self.checkpoint, self.dtype)
        self.kind: str = self.plan.model.kind
        if self.kind not in ("decoder", "encoder"):
            raise ProfileError(
                f"{checkpoint} is of kind {self.kind}, and engines are given token ids; take a"
                " decoder or a text encoder"
            )

    def load(self) -> models.Model:
        """Our model of it, with its weights."""
        return quant.load(self.plan, self.recipe)


class Tracer(AbstractContextManager[Any], ABC):
    """Records what happens while it is open."""

    @abstractmethod
    def events(self, steps: list[Event]) -> list[Event]:
        """Afterwards: the kernel, op and host events of these steps (docs/trace.md)."""


class TorchEngine(ABC):
    """A model, loaded, and run as often as asked: profiling.engine.Engine."""

    name: str

    def __init__(self, text: str) -> None:
        begun = process.now()
        self.source = Source(text)
        self.aliases: dict[str, str] = self.source.plan.model.aliases(self.source.plan.on_disk)
        self.load()
        start_up = {
            "import_ms": (begun - process.start_time()) * 1e3,
            "load_ms": (process.now() - begun) * 1e3,
        }
        self.contract = of_checkpoint(self.source.plan.model, self.source.checkpoint)
        self.header = Header(
            engine=self.name,
            name=f"{self.name}:{text}",
            model=self.contract.card | _exactness(self.contract),
            aliases=self.aliases,
            start_up=start_up,
            environment={"torch": torch.__version__},
        )

    @abstractmethod
    def load(self) -> None:
        """Make the model of `self.source`."""

    @abstractmethod
    def begin(self, request: Request) -> Forward:
        """What does one run's steps, from an empty cache."""

    @abstractmethod
    def tracer(self) -> Tracer:
        """For one run."""

    def run(self, request: Request, traced: bool) -> Trace:
        """Raises ProfileError for a request that the model cannot take."""
        self._check(request)
        torch.set_num_threads(request.threads or len(os.sched_getaffinity(0)))
        steps = Steps()
        with torch.inference_mode():
            forward = self.begin(request)
            tracer = self.tracer() if traced else None
            with tracer or nullcontext():
                result = self._answer(forward, request, steps)
        header = header_of_run(self.header, request, result, steps.events)
        return Trace(header, [*steps.events, *(tracer.events(steps.events) if tracer else [])])

    def _answer(self, forward: Forward, request: Request, steps: Steps) -> dict[str, Any]:
        """The header's `result`: an encoder's hidden states, or greedy decoding."""
        fed, past = list(request.tokens), 0
        if self.source.kind == "encoder":
            with steps.step(sizes(len(fed), causal=False)):
                hidden = forward(fed, 0)
            return {"hidden": hidden.flatten().tolist()}
        made: list[int] = []
        first: Tensor | None = None
        while first is None or len(made) < request.new_tokens:
            with steps.step(sizes(len(fed), past, blocks=blocks(request))):
                logits = forward(fed, past)
                token = int(logits.argmax())
            first = logits.clone() if first is None else first
            past += len(fed)
            fed = [token]
            made.append(token)
        return {"tokens": made[: request.new_tokens], "logits": first.tolist()}

    def _check(self, request: Request) -> None:
        config = self.source.plan.model.config
        asked = len(request.tokens) + request.new_tokens
        if not request.tokens:
            raise ProfileError("the prompt is empty; give at least one token")
        if asked > config.max_seq_len:
            raise ProfileError(f"{asked} tokens are asked, the model takes {config.max_seq_len}")
        if not all(0 <= token < config.vocab_size for token in request.tokens):
            raise ProfileError(f"a token id is not in 0 to {config.vocab_size - 1}")


def _exactness(contract: Contract) -> dict[str, Any]:
    """How weights and cache are held: outputs are as exact as those allow."""
    cache = contract.sections.get("kv_cache", {})
    return {"quantization": contract.sections["quantization"], "kv_dtype": cache.get("dtype")}


def blocks(request: Request) -> int:
    """Cache blocks of a run: its sequence has them all from the first step on."""
    return -(-(len(request.tokens) + request.new_tokens) // BLOCK_SIZE)


def ragged(source: Source, model: Callable[..., Tensor], request: Request) -> Forward:
    """Steps of one sequence by the graph contract (docs/format.md), through `model`."""

    def encode(tokens: list[int], _: int) -> Tensor:
        ids, starts = torch.tensor(tokens), torch.tensor([0, len(tokens)])
        return model(ids, torch.zeros_like(ids), torch.arange(len(tokens)), starts)

    if source.kind == "encoder":
        return encode
    cache = source.plan.model.new_cache(blocks(request))
    table = torch.arange(blocks(request))[None]  # block i is the i-th, so slots are positions

    def decode(tokens: list[int], past: int) -> Tensor:
        new, end = len(tokens), past + len(tokens)
        made = torch.tensor([*tokens, *range(past, end), 0, new, end, new - 1])  # one is quicker
        ids, positions, starts, length, last = torch.split(made, [new, new, 2, 1, 1])
        return model(ids, positions, positions, starts, length, length, table, last, cache)[0]

    return decode

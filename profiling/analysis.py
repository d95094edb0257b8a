"""What a model costs before it runs: arithmetic, traffic, memory, and the time that follows.

A `Subject` is a package or a checkpoint, described. Its calls come from elsewhere, with their costs
as formulas (calls.py); a machine is a `Hardware` (roofline.py). Here are the sizes of the steps
that a request makes, and the sums. docs/analyze.md has the formulas.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .calls import Call, Cost, cost
from .errors import ProfileError
from .roofline import Bound, Hardware, intensity, kernel_name, predict
from .steps import BLOCK_SIZE

Sizes = Mapping[str, float]
# Of prompts in one step of the runtime; of one alone, where the weights are large (package.cpp).
STEP_TOKENS, GPU_STEP_TOKENS = 256, 2048
LONE_STEP_TOKENS, LARGE_WEIGHTS = 512, 500_000_000


@dataclass(frozen=True)
class Subject:
    """A model as far as its costs go.

    model: architecture, kind, name, parameters, dtype, as the manifest's `model`. weight_bytes: of
    each module's tensors, shared ones once. cache: the manifest's `kv_cache`, of a decoder.
    max_tokens: of a sequence; an image's are always as many. calls: those of a step of these
    sizes. temporary_bytes: what one such step needs beside, None if that is not known. package: the
    file, where the subject is one.
    """

    source: str
    model: Mapping[str, Any]
    weight_bytes: int
    module_bytes: Mapping[str, int]
    max_tokens: int
    calls: Callable[[Sizes], Sequence[Call]]
    temporary_bytes: Callable[[Sizes], int | None]
    parameters: Mapping[str, int] | None = None
    cache: Mapping[str, Any] | None = None
    activation_bits: int = 16
    quantization: str | None = None
    package: Path | None = None

    @property
    def kind(self) -> str:
        return str(self.model["kind"])

    def kernel(self, call: Call) -> str:
        kv_dtype = "float32" if self.cache is None else str(self.cache["dtype"])
        return kernel_name(call, self.activation_bits, kv_dtype)


@dataclass(frozen=True)
class Request:
    """batch: sequences or images at once. prompt: tokens of each. context: tokens that a decode
    step sees of each sequence, its own among them. step_tokens: of prompts, in one step."""

    batch: int
    prompt: int
    context: int
    step_tokens: int = STEP_TOKENS


@dataclass
class Sum:
    """Costs and times added up; `seconds` by what bounds each call."""

    cost: Cost = field(default_factory=lambda: Cost(0, 0, 0))
    seconds: dict[Bound, float] = field(default_factory=lambda: {"memory": 0.0, "compute": 0.0})

    def add(self, other: Sum) -> None:
        self.cost = self.cost + other.cost
        for bound, seconds in other.seconds.items():
            self.seconds[bound] += seconds

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sum:
        parts = (values[name] for name in Cost.__dataclass_fields__)
        made = cls(Cost(*parts))
        made.seconds[values["bound"]] = values["seconds"]
        return made

    def to_dict(self) -> dict[str, Any]:
        """bound: what most of the time is bound by."""
        return {
            "seconds": sum(self.seconds.values()),
            **asdict(self.cost),
            "intensity": intensity(self.cost),
            "bound": max(self.seconds, key=lambda bound: self.seconds[bound]),
        }


def request_of(
    subject: Subject,
    batch: int = 1,
    prompt: int | None = None,
    context: int | None = None,
    step_tokens: int = STEP_TOKENS,
) -> Request:
    """A request with its defaults: 512 tokens or as many as there can be. Raises ProfileError."""
    if subject.kind == "image-classifier" and (prompt or context):
        raise ProfileError(f"{subject.source} reads images; it has no --prompt and no --context")
    if subject.kind == "encoder" and context:
        raise ProfileError(f"{subject.source} is an encoder and has no cache; leave --context out")
    most = subject.max_tokens
    prompt = min(512, most) if prompt is None else prompt
    context = prompt if context is None else context
    for name, value in (("batch", batch), ("step-tokens", step_tokens)):
        if value < 1:
            raise ProfileError(f"--{name} is {value}; it must be at least 1")
    for name, value in (("prompt", prompt), ("context", context)):
        if not 1 <= value <= most:
            raise ProfileError(
                f"--{name} is {value}, but {subject.source} takes 1 to {most} tokens a sequence"
            )
    return Request(batch, prompt, context, step_tokens)


def step_tokens_on_cpu(subject: Subject, batch: int) -> int:
    """As the runtime's package.cpp chooses."""
    lone = batch == 1 and subject.weight_bytes >= LARGE_WEIGHTS
    return LONE_STEP_TOKENS if lone else STEP_TOKENS


def phases(kind: str, request: Request) -> dict[str, list[Sizes]]:
    """The steps of each phase. A decoder's prompts are read one after the other, in steps of
    `step_tokens`; then each decode step makes a token of every sequence."""
    batch, prompt = request.batch, request.prompt
    if kind != "decoder":
        tokens = batch * prompt
        sizes = {"B": batch, "T": tokens, "pairs": tokens * prompt, "context": tokens}
        return {"forward": [sizes]}
    starts = range(0, prompt, request.step_tokens)
    reading = [_step(1, past, min(request.step_tokens, prompt - past), prompt) for past in starts]
    return {
        "prefill": reading * batch,
        "decode": [_step(batch, request.context - 1, 1, request.context)],
    }


def _step(sequences: int, past: int, new: int, longest: int) -> Sizes:
    """Each of the sequences gets `new` tokens after its `past` ones, and a row of logits. The block
    tables are as wide as `longest` tokens need."""
    seen = past + new
    return {
        "T": sequences * new,
        "B": sequences,
        "P": -(-longest // BLOCK_SIZE),
        "R": sequences,
        "context": sequences * seen,
        "pairs": sequences * new * (past + seen + 1) / 2,
    }


def analyze(subject: Subject, request: Request, hardware: Hardware) -> dict[str, Any]:
    """All that `ingot analyze --json` prints. Modules are in the model's order."""
    modules: dict[str, dict[str, Sum]] = {}
    wholes: dict[str, Sum] = {}
    temporary: list[int | None] = []
    steps = phases(subject.kind, request)
    for phase, sizes_of_steps in steps.items():
        wholes[phase] = Sum()
        for sizes in sizes_of_steps:
            temporary.append(subject.temporary_bytes(sizes))
            for call in subject.calls(sizes):
                one = _sum_of(call, sizes, subject, hardware)
                modules.setdefault(call.module, {}).setdefault(phase, Sum()).add(one)
                wholes[phase].add(one)
    return {
        "source": subject.source,
        "model": {**subject.model, "quantization": subject.quantization},
        "hardware": hardware.to_dict(),
        "request": asdict(request),
        "memory": _memory(subject, request, hardware, temporary),
        "phases": {
            phase: {**whole.to_dict(), **_pace(subject, phase, whole, request)}
            for phase, whole in wholes.items()
        },
        "modules": [
            {
                "module": path,
                "parameters": subject.parameters and subject.parameters.get(path, 0),
                "weight_bytes": subject.module_bytes.get(path, 0),
                **{phase: found.to_dict() for phase, found in sums.items()},
            }
            for path, sums in modules.items()
        ],
    }


def _sum_of(call: Call, sizes: Sizes, subject: Subject, hardware: Hardware) -> Sum:
    made = Sum(cost(call, sizes))
    found = predict(made.cost, hardware, subject.kernel(call))
    made.seconds[found.bound] = found.seconds
    return made


def _pace(subject: Subject, phase: str, whole: Sum, request: Request) -> dict[str, float]:
    what = "images" if subject.kind == "image-classifier" else "tokens"
    count = request.batch * (1 if phase == "decode" else request.prompt)
    return {f"{what}_per_s": count / sum(whole.seconds.values())}


def _memory(
    subject: Subject, request: Request, hardware: Hardware, temporary: Sequence[int | None]
) -> dict[str, Any]:
    """Bytes that weights, the cache of the longest sequences asked for, and one step need."""
    weights, cached = subject.weight_bytes, 0
    if subject.cache is not None:
        blocks = -(-max(request.prompt, request.context) // BLOCK_SIZE) * request.batch
        cached = blocks * subject.cache["bytes_per_block"] * subject.cache["num_layers"]
    most = None if None in temporary else max(filter(None, temporary), default=0)
    total, available = weights + cached + (most or 0), hardware.memory_gb * 1e9
    return {
        "weight_bytes": weights,
        "kv_bytes": cached,
        "temporary_bytes": most,
        "total_bytes": total,
        "hardware_bytes": available,
        "fits": total <= available,
    }


@dataclass
class Row:
    """Modules of one kind: "model.layers.*.mlp.down_proj", or whole layers: "model.layers.*"."""

    module: str
    is_layer: bool = False
    members: set[str] = field(default_factory=set)
    weight_bytes: int = 0
    phases: dict[str, Sum] = field(default_factory=dict)

    def add(self, member: str, fact: Mapping[str, Any], phases: Sequence[str]) -> None:
        self.members.add(member)
        self.weight_bytes += fact["weight_bytes"]
        for phase in phases:
            if phase in fact:
                self.phases.setdefault(phase, Sum()).add(Sum.from_dict(fact[phase]))


def grouped(result: Mapping[str, Any]) -> list[Row]:
    """The modules of `analyze`, those of all layers as one row: "model.layers.*.mlp.down_proj". In
    front of a layer's rows stands their sum, "model.layers.*", whose members are the layers."""
    phases = list(result["phases"])
    groups: dict[str, dict[str, Row]] = {}
    for fact in result["modules"]:
        path = str(fact["module"])
        kind = re.sub(_NUMBER, ".*", path)
        if layer := re.match(rf"(.*?){_NUMBER}", path):
            head = f"{layer[1]}.*"
            rows = groups.setdefault(head, {"": Row(head, is_layer=True)})
            rows[""].add(layer[0], fact, phases)
        else:
            rows = groups.setdefault(kind, {})
        rows.setdefault(kind, Row(kind)).add(path, fact, phases)
    return [row for rows in groups.values() for row in rows.values()]


_NUMBER = r"\.\d+(?=\.|$)"  # of a layer, in a module's path

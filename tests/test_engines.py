"""Every engine runs the same model to the same tokens, and its trace is as docs/trace.md says."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ingot.export.engines.common import Source
from ingot.export.engines.hf import Transformers
from ingot.export.engines.hooks import ModuleTimer
from ingot.profiling.attribution import UNMATCHED, runs, slices
from ingot.profiling.engine import Process, Request
from ingot.profiling.errors import ProfileError
from ingot.profiling.steps import Steps, sizes
from ingot.profiling.trace import ROOT, Event, Trace
from tests.checkpoints import make_checkpoint
from tests.conftest import ExportPackage

MODULES = {
    "eager": "ingot.export.engines.eager",
    "hf": "ingot.export.engines.hf",
    "compile": "ingot.export.engines.compiled",
    "ingot": "ingot.runtime.engines.package",
}
REQUEST = Request(tuple(range(40, 75)), new_tokens=16, threads=2)
SIZES = ("tokens", "sequences", "rows", "blocks", "context", "pairs")


def traces(engine: str, source: Path | str, request: Request = REQUEST) -> tuple[Trace, Trace]:
    """An untraced run, then a traced one."""
    with closing(Process(MODULES[engine], str(source))) as process:
        return process.run(request, False), process.run(request, True)


def check_form(trace: Trace, untraced: Trace, steps: int) -> None:
    """What docs/trace.md says of any trace."""
    assert [e.category for e in untraced.events] == ["step"] * steps
    for one in (trace, untraced):
        found = one.steps()
        assert [e.args["step"] for e in found] == list(range(steps))
        assert [e.args["phase"] for e in found] == ["prefill"] + ["decode"] * (steps - 1)
        assert all(isinstance(e.args[name], int) for e in found for name in SIZES)
    work = sorted(
        (e for e in trace.events if e.category in ("kernel", "op", "host")),
        key=lambda e: (e.thread, e.start_us),
    )
    assert work
    for before, event in zip(work, work[1:], strict=False):
        assert before.thread != event.thread or before.end_us <= event.start_us + 1e-3
    for event in work:
        if event.module:
            assert [s.args["step"] for s in trace.steps() if within(event, s)] == [
                event.args["step"]
            ]


def within(event: Event, step: Event) -> bool:
    return step.start_us <= event.start_us and event.end_us <= step.end_us + 1e-3


def matched_share(trace: Trace) -> float:
    (steps,) = runs(trace)
    pieces = slices(trace, steps, trace.header.aliases)
    return sum(piece.path[0] != UNMATCHED for piece in pieces) / len(pieces)


def relative_error(ours: Trace, theirs: Trace, output: str) -> float:
    a, b = (np.array(t.header.result[output]) for t in (ours, theirs))
    return float(abs(a - b).max() / abs(b).max())


@pytest.fixture(scope="module")
def demo(demo_checkpoint: Path, demo_package: Path) -> dict[str, tuple[Trace, Trace]]:
    return {
        "eager": traces("eager", demo_checkpoint),
        "hf": traces("hf", demo_checkpoint),
        "ingot": traces("ingot", demo_package),
    }


@pytest.mark.parametrize("engine", ["eager", "hf", "ingot"])
def test_demo(demo: dict[str, tuple[Trace, Trace]], engine: str) -> None:
    untraced, traced = demo[engine]
    check_form(traced, untraced, REQUEST.new_tokens)
    assert matched_share(traced) > 0.8
    for one in (untraced, traced):
        header = one.header
        assert header.engine == engine
        assert header.request == {"tokens": list(REQUEST.tokens), "new_tokens": 16}
        assert header.result["tokens"] == demo["eager"][0].header.result["tokens"]
        assert len(header.result["tokens"]) == 16
        assert relative_error(one, demo["eager"][0], "logits") < 1e-4
        assert header.runs[0]["total_ms"] > header.runs[0]["prefill_ms"] > 0
        assert header.start_up["first_token_ms"] > header.start_up["load_ms"] > 0
        assert header.memory["peak_rss_mb"] > 1
        assert header.model == demo["ingot"][0].header.model


def test_modules_of_all_engines_are_ours(demo: dict[str, tuple[Trace, Trace]]) -> None:
    linears = {"self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"}
    for _, traced in demo.values():
        aliases = traced.header.aliases
        found = {aliases.get(e.module, e.module) for e in traced.events if e.module}
        wanted = {f"model.layers.{layer}.{name}" for layer in range(6) for name in linears}
        assert wanted | {"model.embed_tokens", "lm_head"} <= found
    assert demo["ingot"][1].header.ceilings["read_gb_s"] > 0


def test_compile(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", num_hidden_layers=1)
    untraced, traced = traces("compile", checkpoint)
    check_form(traced, untraced, REQUEST.new_tokens)
    eager, _ = traces("eager", checkpoint)
    assert traced.header.result["tokens"] == eager.header.result["tokens"]
    assert relative_error(traced, eager, "logits") < 1e-4
    calls = [e for e in traced.events if e.category in ("kernel", "op")]
    assert all(e.module for e in calls)
    down = [e for e in calls if e.module == "model.layers.0.mlp.down_proj"]
    assert {e.name for e in down} == {"torch.ops.ingot.linear.default"}
    assert [e.args["flops"] for e in down] == [2 * 35 * 160 * 96] + [2 * 160 * 96] * 15


@pytest.mark.full
def test_compile_demo(demo: dict[str, tuple[Trace, Trace]], demo_checkpoint: Path) -> None:
    untraced, traced = traces("compile", demo_checkpoint)
    check_form(traced, untraced, REQUEST.new_tokens)
    assert traced.header.result["tokens"] == demo["eager"][0].header.result["tokens"]
    assert relative_error(traced, demo["eager"][0], "logits") < 1e-4
    assert matched_share(traced) > 0.8


def test_encoders(export_package: ExportPackage) -> None:
    package = export_package("BertModel", vocab_size=300)
    checkpoint = package.parent / "checkpoint"
    request = Request(REQUEST.tokens, new_tokens=0, threads=2)
    sources = {"eager": checkpoint, "hf": checkpoint, "ingot": package}
    found = {engine: traces(engine, source, request) for engine, source in sources.items()}
    for untraced, traced in found.values():
        check_form(traced, untraced, 1)
        assert relative_error(traced, found["eager"][0], "hidden") < 1e-4
    aliases = found["hf"][1].header.aliases
    assert aliases["encoder.layer.1.attention.self.key"] == "layers.1.attention.qkv_proj"
    assert aliases["encoder.layer.1.attention.self"] == "layers.1.attention"
    assert aliases["encoder.layer.1.intermediate.intermediate_act_fn"] == "layers.1.mlp"


def test_options_of_a_source(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", num_hidden_layers=1)
    model = Source(f"{checkpoint}@bfloat16,int8").load()
    assert model.dtype == "bfloat16"
    assert model.quantization is not None
    assert model.quantization["name"] == "int8"
    with pytest.raises(ValueError, match="float12"):
        Source(f"{checkpoint}@float12")


def test_requests_that_are_refused(demo_checkpoint: Path) -> None:
    sentences = {
        Request((), 4): "the prompt is empty",
        Request((1,), 1024): "1025 tokens are asked, the model takes 1024",
        Request((4096,), 4): "a token id is not in 0 to 4095",
    }
    with closing(Process(MODULES["eager"], str(demo_checkpoint))) as process:
        for request, sentence in sentences.items():
            with pytest.raises(ProfileError, match=sentence):
                process.run(request, False)


def test_a_checkpoint_that_is_missing() -> None:
    with (
        closing(Process(MODULES["eager"], "no/checkpoint")) as process,
        pytest.raises(ProfileError, match="no checkpoint folder no/checkpoint"),
    ):
        process.run(REQUEST, False)


def test_what_transformers_cannot_run(
    demo_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProfileError, match="leave the recipe out"):
        Transformers(f"{demo_checkpoint}@int8")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ProfileError, match="pip install transformers"):
        Transformers(str(demo_checkpoint))


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(x)
        return out


def test_hooks_give_self_times() -> None:
    model, steps = nn.Sequential(Nested()), Steps()
    timer = ModuleTimer(model)
    with timer:
        for past in (0, 1):
            with steps.step(sizes(1, past)):
                model(torch.zeros(2))
    model(torch.zeros(2))  # the hooks are gone
    pieces = [(e.module, e.args["phase"]) for e in timer.events(steps.events)]
    inside = ["0", "0.inner", "0.inner.0", "0.inner", "0.inner.1", "0.inner", "0"]
    path = [ROOT, *inside, ROOT]
    assert pieces == [(p, phase) for phase in ("prefill", "decode") for p in path]

"""The record of a real export: a slow stage is blamed, whichever it is, and nothing hides."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ingot import models, quant
from ingot.export import archive, build, cache, export_module, weights
from ingot.profiling.record import OTHER, UNATTRIBUTED, Record, Recorder, unattributed
from tests.checkpoints import make_checkpoint


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(8, 16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.up(x))
        return out


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Exports compile anew, and leave nothing in the cache."""
    key = f"test-{time.time_ns()}"
    monkeypatch.setattr(cache, "fingerprint", lambda *_: key)
    yield
    shutil.rmtree(cache.folder() / "compiled" / key, ignore_errors=True)


def slowed(function: Callable[..., Any], seconds: float, first: object = None) -> Any:
    """It sleeps before each call, or before those whose argument `first` says."""

    def slow(*arguments: Any, **named: Any) -> Any:
        if first is None or first in arguments:
            time.sleep(seconds)
        return function(*arguments, **named)

    return slow


def seconds(record: Record) -> dict[str, float]:
    """Of each phase, and of each part of one."""
    found = [*record.events, *(child for event in record.events for child in event.children)]
    return {event.name: event.duration_s for event in found}


def test_slow_stages_are_blamed(
    uncached: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._inductor import compile_fx, graph, scheduler

    from ingot.export import module

    stages: dict[str, tuple[object, str, object]] = {
        "capture": (module, "capture", None),
        "post-grad passes": (compile_fx, "post_grad_passes", None),
        "lowering": (graph.GraphLowering, "finalize", None),
        "scheduling": (scheduler.Scheduler, "compute_dependencies", None),
        "link": (build.CppBuild, "_run", "the linker"),
        "plan weights": (weights.WeightStore, "_append", None),
        "write package": (archive.ArchiveWriter, "add_last", None),
    }
    for number, (owner, name, first) in enumerate(stages.values()):
        slow = slowed(getattr(owner, name), 1 + number / 10, first)
        monkeypatch.setattr(owner, name, slow)
    data = export_module(Tiny(), (torch.randn(3, 8),), tmp_path / "tiny.pt2", name="tiny")
    record = Record.from_dict(data)
    found = seconds(record)
    for number, stage in enumerate(stages):
        assert found[stage] >= 1 + number / 10
    assert found[UNATTRIBUTED] == unattributed(record) < 1
    assert found[OTHER] < 1  # of the parts of "C++ compile and link", the last that has any
    assert sum(event.duration_s for event in record.events) == pytest.approx(record.wall_s)
    assert {event.name for event in record.beside} >= {"g++ on model.cpp", "the linker"}
    assert record.facts["graph"]["exported_nodes"] > 0
    # The variance is where the mean was, and from a later torch than 2.11 on the sum where x W was.
    plan = record.facts["memory_plan"]
    assert plan["reuses"] in (1, 2)
    assert plan["peak_bytes"] == str((3 * 16 + 2 * 3) * 4)


def test_quantising_is_told_from_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = models.plan(make_checkpoint(tmp_path / "model"))
    monkeypatch.setattr(quant, "quantise", slowed(quant.quantise, 0.1))
    recorder = Recorder("compile")
    with recorder.phase("load checkpoint"):
        quant.load(plan, quant.find("int8"), phase=recorder.phase)
    found = seconds(recorder.finish())
    assert found["quantise"] >= 0.1 * 10  # four linears in each of two layers, embedding and head
    assert found["read"] + found["pack"] + found[OTHER] < 1


def test_a_failed_stage_leaves_inductor_as_it_was(
    uncached: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._dynamo.utils import get_chromium_event_logger
    from torch._inductor import compile_fx, debug

    noted = debug.set_kernel_post_grad_provenance_tracing
    monkeypatch.setattr(compile_fx, "post_grad_passes", lambda *_, **__: 1 / 0)
    with suppress(Exception):
        export_module(Tiny(), (torch.randn(3, 8),), tmp_path / "tiny.pt2", name="tiny")
    assert not (tmp_path / "tiny.pt2").exists()
    assert debug.set_kernel_post_grad_provenance_tracing is noted
    assert "log_event_start" not in vars(get_chromium_event_logger())

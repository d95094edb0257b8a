"""Models over any ragged schedule, any pages, and poison in all that nobody owns: each sequence
gets the logits that it gets alone, whole, in pages that are in order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from ingot import models
from tests.checkpoints import LLAMAS, make_checkpoint
from tests.families import FAMILIES
from tests.lean_graph import LeanGraph
from tests.ragged import Inputs, Schedule, alone, schedules

MODELS = {
    "gqa": ("Llama", LLAMAS["gqa-128-tied-linear"]),
    "window": FAMILIES["mistral-window"],
    "mha": ("Llama", LLAMAS["mha-80-biased-llama3"]),
}
VOCAB = 300
LONGEST = 40


def call(graph: Any, tokens: list[torch.Tensor], inputs: Inputs, cache: Any) -> torch.Tensor:
    """The logits of every token of a step."""
    context = torch.tensor([len(tokens[part.sequence]) if part else 0 for part in inputs.parts])
    where = (inputs.slots, inputs.query_start, inputs.seq_lens, context, inputs.block_table)
    rows = torch.arange(len(inputs.slots))
    out: torch.Tensor = graph(inputs.gather(tokens), inputs.positions, *where, rows, cache)
    return out


@torch.no_grad()
def check(graph: Any, schedule: Schedule) -> None:
    tokens = [
        torch.tensor([(7 * i * i + 31 * b + 3) % VOCAB for i in range(length)])
        for b, length in enumerate(schedule.lengths)
    ]
    found = [torch.full((length, VOCAB), torch.nan) for length in schedule.lengths]
    cache = graph.new_cache(schedule.num_blocks)
    for layer in cache:
        layer.fill_(0xFF)  # NaN in every dtype
    for step in range(len(schedule.steps)):
        inputs = schedule.inputs(step)
        inputs.scatter(call(graph, tokens, inputs, cache), found)
    for b, length in enumerate(schedule.lengths):
        inputs = alone(b, length)
        expected = call(graph, tokens, inputs, graph.new_cache(len(inputs.block_table[0])))
        assert torch.equal(found[b], expected)
    owned = {block for table in schedule.tables.values() for block in table}
    others = sorted(set(range(schedule.num_blocks)) - owned)
    assert all(bool((layer[others] == 0xFF).all()) for layer in cache)


@pytest.fixture(params=MODELS, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str, tmp_path_factory: pytest.TempPathFactory) -> models.Decoder:
    kind, config = MODELS[name]
    return models.load(make_checkpoint(tmp_path_factory.mktemp("ragged") / "model", kind, **config))


@pytest.fixture(scope="module")
def graph(name: str, export_package: Callable[..., Path]) -> LeanGraph:
    kind, config = MODELS[name]
    return LeanGraph(export_package(kind, **config))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(schedule=schedules(longest=LONGEST))
def test_the_model_gives_each_sequence_its_own_logits(
    model: models.Decoder, schedule: Schedule
) -> None:
    check(model, schedule)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(schedule=schedules(longest=LONGEST))
def test_the_package_gives_each_sequence_its_own_logits(
    graph: LeanGraph, schedule: Schedule
) -> None:
    check(graph, schedule)

"""Weights are loaded beside the graph, which is made from a stand-in."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ingot import models, quant
from ingot.export import contracts
from ingot.export.loading import Loading
from ingot.models import Keep, held
from ingot.profiling.record import Recorder
from tests.checkpoints import make_checkpoint


def loading(load: Any) -> Loading:
    return Loading(load, held, Recorder("compile"))


def test_a_stand_in_has_shapes_and_small_values(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", hidden_size=64)
    real = contracts.named_tensors(models.load(checkpoint))
    stand_in = contracts.named_tensors(models.plan(checkpoint).stand_in(64))
    assert [*stand_in] == [*real]
    small = 0
    for name, tensor in real.items():
        assert (stand_in[name].dtype, stand_in[name].shape) == (tensor.dtype, tensor.shape)
        if tensor.numel() <= 64:
            assert torch.equal(stand_in[name], tensor)
            small += 1
    assert small >= 5  # the norms
    tied = models.plan(make_checkpoint(tmp_path / "tied", tie_word_embeddings=True)).stand_in(8)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight


def test_what_is_quantised_needs_its_weights_first(tmp_path: Path) -> None:
    plan = models.plan(make_checkpoint(tmp_path / "model"))
    assert quant.is_float(plan, None, None)
    assert not quant.is_float(plan, quant.find("int8"), None)
    assert not quant.is_float(plan, None, 8)


def test_a_thread_of_its_own_makes_the_model() -> None:
    def load(keep: Keep) -> Any:
        return keep(torch.tensor(threading.get_ident()))

    interval = sys.getswitchinterval()
    with loading(load) as running:
        made: Any = running.result()
        running.check()
    assert int(made) != threading.get_ident()
    assert sys.getswitchinterval() == interval


def test_a_failure_is_told_as_soon_as_it_is_known() -> None:
    failed = threading.Event()

    def load(keep: Keep) -> Any:
        failed.wait()
        raise models.CheckpointError("the tensor is damaged")

    with loading(load) as running:
        running.check()
        failed.set()
        with pytest.raises(models.CheckpointError, match="is damaged"):
            running.result()
        with pytest.raises(models.CheckpointError, match="is damaged"):
            running.check()


def test_a_stop_ends_it() -> None:
    kept = list[Tensor]()

    def load(keep: Keep) -> Any:
        while True:
            kept.append(keep(torch.zeros(1)))

    with loading(load):
        pass
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]

"""CUDA's linears and embeddings beyond their cases, emulated: what a GPU's loads cannot read."""

from __future__ import annotations

import pytest
import torch

from ingot.custom_ops.declare import OPS

from ..custom_ops.test_cases import make
from . import emulated


@pytest.mark.parametrize(
    "name", ["linear", "linear_many", "linear_w4", "linear_w8", "linear_w4_activated"]
)
def test_weights_that_are_not_aligned_are_refused(name: str) -> None:
    cases = (list(make(name, index)) for index in range(len(OPS[name].cases)))
    arguments = next(a for a in cases if a[1].dtype != torch.float32 and a[1].numel())
    weight = arguments[1]
    storage = torch.zeros(weight.nbytes + 16, dtype=torch.uint8)
    for offset, refused in ((8, True), (16, False)):
        of_bytes = storage[offset : offset + weight.nbytes]
        arguments[1] = of_bytes.view(weight.dtype).view(weight.shape)
        if refused:
            with pytest.raises(RuntimeError, match="begin at a multiple of 16 bytes; copy it"):
                emulated.call(OPS[name].schema, *arguments)
        else:
            emulated.call(OPS[name].schema, *arguments)


def test_an_embedding_of_codes_is_read_by_words() -> None:
    name = "quantised_embedding"
    arguments = list(make(name, 0))
    expected = emulated.call(OPS[name].schema, *arguments)
    weight = arguments[1]
    storage = torch.zeros(weight.nbytes + 16, dtype=torch.uint8)
    for offset in (4, 2):
        arguments[1] = storage[offset : offset + weight.nbytes].view(weight.shape)
        arguments[1].copy_(weight)
        if offset % 4 == 0:
            assert torch.equal(emulated.call(OPS[name].schema, *arguments), expected)
        else:
            with pytest.raises(RuntimeError, match="begin at a multiple of 4 bytes; copy it"):
                emulated.call(OPS[name].schema, *arguments)

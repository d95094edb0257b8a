"""transformers on torch, eager."""

from __future__ import annotations

from collections.abc import Callable

import networks
import torch
import transformers
from protocol import Array, Call, serve

VERSION = f"{transformers.__version__}, torch {torch.__version__}"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load(model: str, precision: str, threads: int) -> torch.nn.Module:
    torch.set_num_threads(threads)
    return networks.load(model, DTYPES[precision])


def calls(network: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype, x: Array) -> Call:
    given = torch.from_numpy(x)

    def call() -> Array:
        with torch.no_grad():
            return network(given.to(dtype) if x.ndim == 4 else given).float().numpy()

    return call


def eager(model: str, precision: str, threads: int) -> Callable[[Array], Call]:
    network = load(model, precision, threads)
    return lambda x: calls(network, DTYPES[precision], x)


if __name__ == "__main__":
    serve(VERSION, eager)

"""transformers on torch.compile with frozen weights, which are packed and folded as constants.

The compiler does not cache what is frozen: every process compiles for each batch, which takes
longer than all that is measured.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch._inductor.config
from protocol import Array, Call, serve
from torch_worker import DTYPES, VERSION, calls, load


def compiled(model: str, precision: str, threads: int) -> Callable[[Array], Call]:
    torch._inductor.config.freezing = True
    network = torch.compile(load(model, precision, threads), dynamic=False)
    return lambda x: calls(network, DTYPES[precision], x)


if __name__ == "__main__":
    serve(VERSION, compiled)

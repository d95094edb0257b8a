"""A model's calls from shapes alone: its forward on the meta device, watched.

So every family's costs are those of its own code, with no formula for a family anywhere. The ops'
costs are what their declarations say. Between two ops, PyTorch's own arithmetic is taken for one
generated kernel, as the compiler fuses it: it reads what was made before it and writes what is used
after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..custom_ops.cost import Cost, Load
from ..custom_ops.declare import NAMESPACE, OPS
from ..models import Decoder, Model
from ..models.encoder import ImageClassifier, TextEncoder
from ..profiling.calls import Call
from ..profiling.roofline import GENERATED

# Of these arguments only the rows that are asked for are read.
_GATHERS = (torch.ops.aten.index.Tensor, torch.ops.aten.embedding.default)
_LOAD = Load(sympy.Symbol("context"), sympy.Symbol("pairs"))


@dataclass(frozen=True)
class DryRun:
    """calls: formulas over `context` and `pairs` alone. temporary_bytes: the most that tensors
    between kernels take at once."""

    calls: list[Call]
    temporary_bytes: int


def dry_run(model: Model, sizes: Mapping[str, float]) -> DryRun:
    """One step of `model`, whose tensors are on the meta device, at the sizes T, B, P and R."""
    inputs = _inputs(model, {name: int(size) for name, size in sizes.items()})
    load = Load() if isinstance(model, ImageClassifier) else _LOAD  # images are of one length
    with _watched(model, load) as watch, torch.no_grad():
        result = model(*inputs)
    return _summary(watch.events, result)


def _inputs(model: Model, sizes: Mapping[str, int]) -> list[Any]:
    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device="meta")

    batch = sizes["B"]
    if isinstance(model, Decoder):
        tokens, blocks = sizes["T"], sizes["P"]
        caches = [
            torch.empty(batch * blocks, model.bytes_per_block, dtype=torch.uint8, device="meta")
            for _ in range(model.config.num_layers)
        ]
        per_token = [integers(tokens) for _ in range(3)]
        per_sequence = [integers(batch + 1), integers(batch), integers(batch)]
        return [*per_token, *per_sequence, integers(batch, blocks), integers(sizes["R"]), caches]
    if isinstance(model, TextEncoder):
        return [*(integers(sizes["T"]) for _ in range(3)), integers(batch + 1)]
    side = model.config.image_size
    return [torch.empty(batch, model.config.num_channels, side, side, device="meta")]


@dataclass
class _Event:
    """One operator that ran in `module`: the tensors it read, with the bytes of each that it needs,
    and those it made. cost: of our ops; flops: of PyTorch's own."""

    name: str
    module: str
    reads: list[tuple[Tensor, int]]
    writes: list[Tensor]
    cost: Cost | None = None
    flops: int = 0


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, load: Load) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.load = load
        self.path: list[str] = []
        self.events: list[_Event] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, made = _tensors((args, kwargs)), _tensors(out)
        event = _Event(GENERATED, self.path[-1], [(x, _nbytes(x)) for x in read], made)
        if func.namespace == NAMESPACE:
            op = OPS[func._schema.name.partition("::")[2]]
            event.name, event.cost = op.schema.name, op.cost(self.load, *args)
        elif set(map(_storage, made)) <= set(map(_storage, read)):
            return out  # a view
        elif func in _GATHERS:
            event.reads[0] = read[0], sum(map(_nbytes, made))
        else:
            event.flops = max(tensor.numel() for tensor in [*read, *made])
        self.events.append(event)
        return out


@contextmanager
def _watched(model: nn.Module, load: Load) -> Iterator[_Watch]:
    """A watch that knows which module runs."""
    watch, hooks = _Watch(load), []
    for path, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, p=path: watch.path.append(p)))
        hooks.append(module.register_forward_hook(lambda *_: _drop(watch.path)))
    try:
        with watch:
            yield watch
    finally:
        for hook in hooks:
            hook.remove()


def _drop(path: list[str]) -> None:
    path.pop()


def _summary(events: list[_Event], result: Tensor) -> DryRun:
    runs = itertools.groupby(events, lambda event: id(event) if event.cost else GENERATED)
    kernels = [list(run) for _, run in runs]
    last_use: dict[int, int] = {}  # of a storage: the number of a kernel
    for number, kernel in enumerate(kernels):
        last_use |= {_storage(tensor): number for event in kernel for tensor, _ in event.reads}
    last_use[_storage(result)] = len(kernels)
    calls: list[Call] = []
    live = [0] * (len(kernels) + 1)
    for number, kernel in enumerate(kernels):
        made = {_storage(tensor): tensor for event in kernel for tensor in event.writes}
        kept = {key for key in made if last_use.get(key, number) > number}
        for key in kept:
            for later in range(number, last_use[key] + 1):
                live[later] += made[key].untyped_storage().nbytes()
        calls += [_op_call(kernel[0])] if kernel[0].cost else _generated_calls(kernel, made, kept)
    return DryRun(calls, max(live))


def _op_call(event: _Event) -> Call:
    assert event.cost is not None
    return Call(
        event.name,
        "op",
        event.module,
        (event.module,),
        inputs=tuple(_fact(tensor) for tensor, _ in event.reads),
        outputs=tuple(map(_fact, event.writes)),
        **_formulas(event.cost),
    )


def _generated_calls(kernel: list[_Event], made: Container[int], kept: set[int]) -> list[Call]:
    """One for each module. made: storages that the kernel makes; kept: those for others to read."""
    seen: set[tuple[Any, ...]] = set()
    costs: dict[str, Cost] = {}
    for event in kernel:
        read = written = 0
        for tensor, size in event.reads:
            view = (_storage(tensor), tensor.storage_offset(), tensor.shape, tensor.stride())
            if _storage(tensor) not in made and view not in seen:
                seen.add(view)
                read += size
        for tensor in event.writes:
            if _storage(tensor) in kept:
                kept = kept - {_storage(tensor)}
                written += _nbytes(tensor)
        before = costs.get(event.module, Cost(0, 0, 0))
        added = Cost(event.flops, read, written)
        costs[event.module] = Cost(*(a + b for a, b in zip(before, added, strict=True)))
    return [
        Call(GENERATED, "kernel", module, (module,), **_formulas(cost))
        for module, cost in costs.items()
    ]


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    """Of tensors that are all alive, which share memory."""
    return int(tensor.untyped_storage()._cdata)


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.itemsize


def _fact(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


def _formulas(cost: Cost) -> dict[str, Any]:
    return {name: str(value) for name, value in cost._asdict().items()}

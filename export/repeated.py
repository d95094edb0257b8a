"""Repeated blocks: those of a model that are alike are traced and compiled once.

While the model's graph is captured its blocks step aside, and one node stands for them all: a call
of an op that exists for that time. Each kind of block then is a graph of its own, captured and
compiled to a function that takes a block's tensors as arguments, and the op's code calls these in
turn. So what a block more costs is a line of C++. Nothing is lost by it where blocks begin and end
at a call of an op, with which Inductor fuses nothing anyway (models/decoder.py: Stream).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Node
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

NAME = "blocks"  # of the op
_NAMESPACE = "ingot_repeated"
_TENSOR = object()  # stands for a tensor among a call's arguments
# Attributes of modules that decide nothing of their code.
_IDLE = ("forward", "quality", "training")


def shim_name(device: str) -> str:
    """The C function that stands for the op."""
    return f"aoti_torch_{device}_{NAME}"


@dataclass(frozen=True)
class Kind:
    """Blocks that are alike: `block` is the first of them.

    Their arguments are the leaves of `spec`, `leaves` with _TENSOR where a tensor is; behind these
    come the block's own, by their names `weights`.
    """

    name: str
    block: nn.Module
    spec: TreeSpec
    leaves: tuple[Any, ...]
    weights: tuple[str, ...]

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What a block returns, from its tensors and its own."""
        given = iter(tensors)
        leaves = [next(given) if leaf is _TENSOR else leaf for leaf in self.leaves]
        args = tree_unflatten(leaves, self.spec)
        own = dict(zip(self.weights, given, strict=True))
        return tuple(tree_leaves(torch.func.functional_call(self.block, own, args)))


@dataclass(frozen=True)
class Call:
    """Of a block. tensors: which of the op's arguments behind x it is given, behind x."""

    path: str
    kind: Kind
    tensors: tuple[int, ...]


@dataclass(frozen=True)
class Blocks:
    """All blocks of a model, as its captured graph calls them: one op. Its first arguments, as many
    as its `results`, are x."""

    op: Any
    calls: tuple[Call, ...]
    results: int

    @property
    def kinds(self) -> list[Kind]:
        return list({call.kind.name: call.kind for call in self.calls}.values())

    def shim(self, device: str) -> str:
        """Its C declaration, as Inductor's `custom_ops_to_c_shims` has it."""
        names = range(self.results)
        x = [f"AtenTensorHandle x{i}" for i in names]
        others = ["read, int64_t reads", "written, int64_t writes"]
        lists = [f"const AtenTensorHandle* {name}" for name in others]
        made = [f"AtenTensorHandle* ret{i}" for i in names]
        return f"AOTITorchError {shim_name(device)}({', '.join((*x, *lists, *made))})"

    def give(self, wrapper: str, device: str) -> tuple[str, list[bool]]:
        """The model's wrapper as it gives away what is x only for the blocks, whose first one frees
        it once read; and which of x these are."""
        call = re.search(rf"\b{shim_name(device)}\((?P<x>(?:\w+, ){{{self.results}}}).*", wrapper)
        if call is None:
            return wrapper, [False] * self.results
        names = call["x"].removesuffix(", ").split(", ")
        rest = wrapper[call.end("x") :]
        given = [
            name.startswith("buf")
            and names.count(name) == 1
            and re.findall(rf"\b{name}\b[^;]*;", rest) == [f"{name}.reset();"]
            for name in names
        ]
        x = (
            f"{name}.release(), " if g else f"{name}, "
            for name, g in zip(names, given, strict=True)
        )
        return wrapper[: call.start("x")] + "".join(x) + rest, given

    def source(self, device: str, given: Sequence[bool]) -> str:
        """The op's C++, which calls the functions of the kinds. given: which of x are its own."""
        x = (f"Input(x{i}, {str(own).lower()})" for i, own in enumerate(given))
        lines = [f"Blocks<{self.results}> run({{{', '.join(x)}}}, read, reads, written);"]
        for call in self.calls:
            lines.append(f"run({call.kind.name}, {{{', '.join(map(str, call.tensors))}}});")
        lines += [f"*ret{i} = run.x[{i}].release();" for i in range(self.results)]
        lines.append("return AOTI_TORCH_SUCCESS;")
        return "\n".join(
            (f'extern "C" {self.shim(device)} {{', *(f"  {line}" for line in lines), "}")
        )

    def arguments(self, kind: Kind, program: ExportedProgram) -> list[Node]:
        """What the first block of a kind is called with, as nodes of the model's graph."""
        (node,) = (node for node in program.graph.nodes if node.target == self.op)
        call = next(call for call in self.calls if call.kind is kind)
        *x, read, written = node.args
        others = [*read, *written]
        return [*x, *(others[place] for place in call.tensors)]

    def capture(self, kind: Kind, program: ExportedProgram) -> ExportedProgram:
        """The graph of a kind of block that `program` calls: its sizes vary as they do there."""
        tensors = [node.meta["val"] for node in self.arguments(kind, program)]
        dims: dict[Any, Any] = {}
        shapes = tuple(
            {
                place: dims.setdefault(size.node.expr, _dim(size.node.expr, program))
                for place, size in enumerate(tensor.shape)
                if isinstance(size, torch.SymInt)
            }
            for tensor in tensors
        )
        examples = tuple(torch.zeros(_example(t.shape), dtype=t.dtype) for t in tensors)
        with torch.no_grad():
            return torch.export.export(
                _Alone(kind), examples, dynamic_shapes=(shapes,), strict=False
            )


class _Alone(nn.Module):
    """A block as a graph: all that it reads are arguments."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.block, self._kind = kind.block, kind

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self._kind(tensors)


def _example(shape: Sequence[Any]) -> list[int]:
    return [int(s.node.hint) if isinstance(s, torch.SymInt) else int(s) for s in shape]


def _dim(size: Any, program: ExportedProgram) -> Any:
    limits = program.range_constraints.get(size)
    if limits is None or not isinstance(limits.upper, sympy.Integer):
        return Dim.DYNAMIC
    return Dim(str(size), min=max(int(limits.lower), 1), max=int(limits.upper))


class Watch:
    """Blocks that step aside. `blocks` is what was seen of them, once all were called."""

    def __init__(self, library: Any, last: str) -> None:
        self.blocks: Blocks | None = None
        self._library, self._last = library, last
        self._kinds: dict[Any, Kind] = {}
        self._calls: list[tuple[str, Kind, list[Tensor]]] = []
        # The op's arguments behind x, by identity.
        self._read: dict[int, Tensor] = {}
        self._written: dict[int, Tensor] = {}

    def called(self, path: str, block: nn.Module, x: Any, *rest: Any) -> Any:
        """In place of the block's forward."""
        like = tree_leaves(x)[0]
        x = tree_map(lambda leaf: torch.zeros_like(like) if leaf is None else leaf, x)
        given = [*filter(_is_tensor, tree_leaves(rest)), *_own_tensors(block).values()]
        for tensor in _written(block, rest):
            self._written[id(tensor)] = tensor
        self._read |= {id(t): t for t in given if id(t) not in self._written}
        self._calls.append((path, self._kind(block, x, rest), given))
        return self._call(x) if path == self._last else x

    def _kind(self, block: nn.Module, x: Any, rest: tuple[Any, ...]) -> Kind:
        leaves, spec = tree_flatten((x, *rest))
        facts = tuple((t.dtype, t.dim()) if _is_tensor(t) else repr(t) for t in leaves)
        kept = tuple(_TENSOR if _is_tensor(leaf) else leaf for leaf in leaves)
        key = (_structure(block), str(spec), facts)
        name = f"{NAME}_{len(self._kinds)}"
        kind = Kind(name, block, spec, kept, tuple(_own_tensors(block)))
        return self._kinds.setdefault(key, kind)

    def _call(self, x: Any) -> Any:
        """The op's node, in place of the last block's call."""
        leaves, spec = tree_flatten(x)
        arguments = ", ".join(f"Tensor x{i}" for i in range(len(leaves)))
        results = ", ".join(["Tensor"] * len(leaves))
        self._library.define(
            f"{NAME}({arguments}, Tensor[] read, Tensor(a!)[] written) -> ({results})"
        )

        def fake(*tensors: Any) -> tuple[Tensor, ...]:
            return tuple(torch.empty_like(tensor) for tensor in tensors[: len(leaves)])

        torch.library.register_fake(f"{_NAMESPACE}::{NAME}", fake, lib=self._library)
        op = getattr(getattr(torch.ops, _NAMESPACE), NAME).default
        places = {key: place for place, key in enumerate((*self._read, *self._written))}
        calls = tuple(
            Call(path, kind, tuple(places[id(tensor)] for tensor in given))
            for path, kind, given in self._calls
        )
        self.blocks = Blocks(op, calls, len(leaves))
        out = op(*leaves, list(self._read.values()), list(self._written.values()))
        return tree_unflatten([out] if _is_tensor(out) else list(out), spec)


@contextmanager
def library() -> Iterator[Any]:
    """While it is open, the op that stands for the blocks is there."""
    with torch.library._scoped_library(_NAMESPACE, "FRAGMENT") as opened:
        yield opened


@contextmanager
def stepping_aside(blocks: Mapping[str, Any], library: Any) -> Iterator[Watch]:
    """While it is open the `blocks`, given by path in the order in which they are called, are one
    call of an op.

    A block is `forward(x, ...)`, x of tensors like those that it returns, None for zeros. Of its
    arguments it writes those that its class names in `writes`.
    """
    watch = Watch(library, next(reversed(list(blocks)), ""))
    for path, block in blocks.items():
        block.forward = partial(watch.called, path, block)
    try:
        yield watch
    finally:
        for block in blocks.values():
            del block.forward  # the class's own is there again


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _written(block: Any, rest: tuple[Any, ...]) -> list[Tensor]:
    _, _, *names = inspect.signature(type(block).forward).parameters  # without self and x
    return [value for name, value in zip(names, rest, strict=True) if name in type(block).writes]


def _own_tensors(module: nn.Module, recurse: bool = True) -> dict[str, Tensor]:
    parameters = dict(module.named_parameters(recurse=recurse, remove_duplicate=False))
    return parameters | dict(module.named_buffers(recurse=recurse, remove_duplicate=False))


def _structure(block: nn.Module) -> tuple[Any, ...]:
    """Equal for blocks that compute alike: the classes of their modules, these's attributes and
    their tensors' dtypes and shapes."""

    def attributes(module: nn.Module) -> Any:
        public = (name for name in vars(module) if not name.startswith("_") and name not in _IDLE)
        return tuple((name, repr(getattr(module, name))) for name in public)

    def tensors(module: nn.Module) -> Any:
        own = _own_tensors(module, recurse=False)
        return tuple((name, tensor.dtype, tensor.shape) for name, tensor in own.items())

    return tuple(
        (path, type(module), attributes(module), tensors(module))
        for path, module in block.named_modules()
    )

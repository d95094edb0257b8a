"""The weight store: every tensor once, 64-byte aligned, to be memory-mapped and used in place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .archive import ALIGNMENT
from .errors import ExportError


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's elements in row-major order, without a copy where it is contiguous already."""
    flat = tensor.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


@dataclass
class WeightStore:
    """Where each tensor goes. Tensors of equal content, tied ones above all, share one place."""

    constants: dict[str, dict[str, object]] = field(default_factory=dict)
    size: int = 0
    _unique: list[Tensor] = field(default_factory=list)

    @classmethod
    def plan(cls, tensors: Mapping[str, Tensor], names: Sequence[str]) -> WeightStore:
        """A store of those names. Raises ExportError if `tensors` lacks one."""
        store = cls()
        places: dict[tuple[object, ...], int] = {}
        for name in names:
            if name not in tensors:
                raise ExportError(f"compiled code wants '{name}', which the module does not hold")
            tensor = tensors[name].detach()
            content = hashlib.sha256(_bytes(tensor)).hexdigest()
            identity = (content, tensor.dtype, tuple(tensor.shape))
            if identity not in places:
                places[identity] = store._append(tensor)
            store.constants[name] = {
                "offset": places[identity],
                "nbytes": tensor.numel() * tensor.element_size(),
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": list(tensor.shape),
                "stride": _row_major(tensor.shape),
            }
        return store

    def _append(self, tensor: Tensor) -> int:
        offset = self.size + -self.size % ALIGNMENT
        self._unique.append(tensor)
        self.size = offset + tensor.numel() * tensor.element_size()
        return offset

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The store's bytes, tensor by tensor."""
        position = 0
        for tensor in self._unique:
            padding = -position % ALIGNMENT
            if padding:
                yield bytes(padding)
            data = _bytes(tensor)
            yield data
            position += padding + len(data)


def _row_major(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return strides[::-1]

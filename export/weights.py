"""The weight store: every tensor once, 64-byte aligned, to be memory-mapped and used in place."""

from __future__ import annotations

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
        seen = _Seen()
        for name in names:
            if name not in tensors:
                raise ExportError(f"compiled code wants '{name}', which the module does not hold")
            tensor = tensors[name].detach()
            offset = seen.place(tensor)
            if offset is None:
                offset = store._append(tensor)
                seen.note(tensor, offset)
            store.constants[name] = {
                "offset": offset,
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


class _Seen:
    """Tensors that have a place. Only those that begin alike are compared whole."""

    def __init__(self) -> None:
        self._found: dict[object, list[tuple[Tensor, int]]] = {}

    def place(self, tensor: Tensor) -> int | None:
        """That of an equal tensor."""
        alike = self._found.get(_beginning(tensor), [])
        return next((place for other, place in alike if _equal(other, tensor)), None)

    def note(self, tensor: Tensor, place: int) -> None:
        self._found.setdefault(_beginning(tensor), []).append((tensor, place))


def _beginning(tensor: Tensor) -> object:
    return tensor.dtype, tuple(tensor.shape), bytes(_bytes(tensor.reshape(-1)[:64]))


def _equal(a: Tensor, b: Tensor) -> bool:
    """Bit for bit, as NaN equals itself."""
    same, other = (x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b))
    return a.data_ptr() == b.data_ptr() or torch.equal(same, other)


def _row_major(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return strides[::-1]

"""The weight store: every tensor once, 64-byte aligned, to be memory-mapped and used in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .archive import ALIGNMENT, SMALL, Entry
from .errors import ExportError


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's elements in row-major order, without a copy where it is contiguous already."""
    flat = tensor.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


class WeightStore:
    """Where each tensor goes, and the entry of the package that they are written to. Tensors of
    equal content, tied ones above all, share one place.

    constants: for the manifest.
    """

    def __init__(self, entry: Entry) -> None:
        self.constants: dict[str, dict[str, object]] = {}
        self._entry, self._seen = entry, _Seen()

    @property
    def size(self) -> int:
        """Bytes, so far."""
        return self._entry.size

    def keep(self, tensor: Tensor) -> Tensor:
        """An equal tensor, contiguous, that lies in the package instead of memory: an export needs
        memory for a few tensors at a time. Raises ExportError where the disk is full."""
        if tensor.nbytes < SMALL:  # it is written once the graph wants it
            return tensor
        offset = self._seen.place(tensor)
        if offset is None:
            return self._append(tensor)[1]
        return self._kept(
            offset, tensor
        )  # memory of its own: a graph must not depend on a likeness

    def plan(self, tensors: Mapping[str, Tensor], names: Sequence[str]) -> None:
        """Give each of those names its place; what was not kept is written. Raises ExportError if
        `tensors` lacks one."""
        for name in names:
            if name not in tensors:
                raise ExportError(f"compiled code wants '{name}', which the module does not hold")
            tensor = tensors[name].detach()
            offset = self._seen.place(tensor)
            self.constants[name] = {
                "offset": self._append(tensor)[0] if offset is None else offset,
                "nbytes": tensor.numel() * tensor.element_size(),
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": list(tensor.shape),
                "stride": _row_major(tensor.shape),
            }

    def end(self) -> None:
        self._entry.end()

    def _append(self, tensor: Tensor) -> tuple[int, Tensor]:
        """Where it is written, and the tensor from there."""
        if padding := -self.size % ALIGNMENT:
            self._entry.write(bytes(padding))
        offset = self.size
        self._entry.write(_bytes(tensor))
        kept = self._kept(offset, tensor)
        self._seen.note(kept, offset)
        return offset, kept

    def _kept(self, offset: int, tensor: Tensor) -> Tensor:
        """The tensor that was written there, from the file."""
        if tensor.nbytes < SMALL:
            return tensor
        view = self._entry.view(offset, tensor.nbytes)
        return torch.frombuffer(view, dtype=tensor.dtype).view(tensor.shape)


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

"""Spill: weights that are ready lie in a file, so that no model has to fit in memory.

What is mapped from a file the kernel takes back when memory is short, and reads again. So an export
needs memory for one tensor at a time. Of a package's weights the file is the package (weights.py);
this is for ONNX's, which are changed once more, and room on disk for the weights twice.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from .errors import ExportError

_SMALL = 1 << 16  # bytes: smaller tensors stay where they are


class Spill:
    """A file in `folder`, without a name, that is gone with its last tensor. Use it as a context:
    when it ends the tensors stay. Raises ExportError where the folder takes no file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Spill:
        try:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def keep(self, tensor: Tensor) -> Tensor:
        """An equal tensor, contiguous, in the file. Raises ExportError where the disk is full."""
        if tensor.nbytes < _SMALL:
            return tensor
        begin = self._file.seek(0, os.SEEK_END)
        begin = self._file.seek(begin + -begin % mmap.ALLOCATIONGRANULARITY)
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
        try:
            written = 0
            while written < len(data):  # at most 2 GiB at once
                written += self._file.write(data[written:])
            mapped = mmap.mmap(self._file.fileno(), len(data), mmap.MAP_PRIVATE, offset=begin)
        except OSError as error:
            raise self._failed(error) from error
        return torch.frombuffer(mapped, dtype=tensor.dtype).view(tensor.shape)

    def _failed(self, error: OSError) -> ExportError:
        return ExportError(
            f"cannot write weights to {self._folder}: {error.strerror}; nothing was left there,"
            " where an export needs room for the weights twice"
        )

"""What all importers are: the tensors of a quantised Linear on disk become a `QuantisedWeight`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.errors import CheckpointError
from ..weight import QuantisedWeight

# Name of a tensor -> its shape and the dtypes that it may have.
Expected = dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]]

FLOATING = (torch.float16, torch.bfloat16, torch.float32)
INDEX = (torch.int32, torch.int64)


class Importer(ABC):
    """Reads one checkpoint's quantised Linears.

    A Linear is named by the prefix of its tensors on disk, `path`:
    "model.layers.0.self_attn.q_proj". Its bias is no part of this: it is stored as ever.

    recipe_name: as the manifest has it. activation_bits: 16, or 8 where each token's activations
    are to be rounded to int8 with a scale of their own. marks: ends of the names of the tensors by
    which a quantised Linear is known.
    """

    recipe_name: str
    marks: tuple[str, ...]
    activation_bits = 16

    def __init__(self, checkpoint: Path, names: Collection[str]) -> None:
        self.checkpoint, self.names = checkpoint, frozenset(names)

    def takes(self, path: str) -> bool:
        """Whether the Linear is quantised on disk.

        The tensors say so: config.json's lists name modules as the quantiser's own model did, and
        often leave out what was never considered. Raises CheckpointError where they disagree.
        """
        held = [name for mark in self.marks if self._holds(name := f"{path}.{mark}")]
        if held and (field := self._excluded_by(path)):
            raise CheckpointError(
                f"{self.checkpoint} holds {held[0]}, which config.json's '{field}' says is not"
                " quantised; take the original files"
            )
        return bool(held)

    def tensors(self, path: str, out_features: int, in_features: int) -> Expected:
        """The tensors on disk that make up this weight: shapes, and dtypes to choose from."""
        parts = self._parts(path, out_features, in_features)
        return {f"{path}.{part}": expected for part, expected in parts.items()}

    def read(
        self, path: str, tensors: Mapping[str, Tensor], out_features: int, in_features: int
    ) -> QuantisedWeight:
        """The weight [out_features, in_features] that `tensors`, by their names on disk, make up.

        Raises CheckpointError for a tensor that is missing, of another shape or dtype, or whose
        values are out of range.
        """
        for name, (shape, dtypes) in self.tensors(path, out_features, in_features).items():
            if name not in tensors:
                raise CheckpointError(f"{self.checkpoint} lacks {name}; take the original files")
            tensor = tensors[name]
            if tuple(tensor.shape) != shape or tensor.dtype not in dtypes:
                wanted = " or ".join(_text(dtype) for dtype in dtypes)
                raise CheckpointError(
                    f"{self.checkpoint}: tensor {name} is {_text(tensor.dtype)}"
                    f" {tuple(tensor.shape)}, config.json wants {wanted} {shape}"
                )
        parts = {name.removeprefix(f"{path}."): tensor for name, tensor in tensors.items()}
        try:
            return self._weight(path, parts, out_features, in_features)
        except ValueError as error:
            raise CheckpointError(f"{self.checkpoint}: tensor {path}.{error}") from error

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the manifest says of the recipe: method, bits, group_size and so on."""

    @abstractmethod
    def _excluded_by(self, path: str) -> str | None:
        """The field of config.json that says that this Linear is not quantised."""

    @abstractmethod
    def _parts(self, path: str, out_features: int, in_features: int) -> Expected:
        """`tensors`, by the ends of their names."""

    @abstractmethod
    def _weight(
        self, path: str, parts: Mapping[str, Tensor], out_features: int, in_features: int
    ) -> QuantisedWeight:
        """From tensors of the right shapes. Raises ValueError that starts with a name's end."""

    def _holds(self, name: str) -> bool:
        return name in self.names


def listed(path: str, modules: Collection[str]) -> bool:
    """Whether a list names the module, one around it, or the end of its path."""
    return any(f".{module}." in f".{path}." for module in modules)


def _text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

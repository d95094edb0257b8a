"""What the loader and export want of every model, whatever its kind."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from .layers import Stored


class Model(nn.Module):
    """A module whose tensors, held by `Stored` modules, come from a checkpoint.

    config: a frozen dataclass with `architecture`, that decides the graph. dtype: of the packed
    weights, "float32" or "bfloat16".
    """

    kind: ClassVar[str]
    quantization: dict[str, Any] | None = None  # the recipe, as the manifest states it

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        self.dtype = str(dtype).removeprefix("torch.")

    def tie(self) -> None:
        """Make tensors one that are one; after all are filled."""

    def is_tied(self, owner: nn.Module) -> bool:
        """Whether the module's tensors are another's."""
        return False

    def owners(self) -> list[tuple[str, str, Stored]]:
        """Path, name and owner of each tensor that a checkpoint fills."""
        return [
            (path, name, owner)
            for path, owner in self.named_modules()
            if isinstance(owner, Stored) and not self.is_tied(owner)
            for name, _ in owner.named_parameters(recurse=False)
        ]

    @property
    def parameter_count(self) -> int:
        """As the checkpoint counts: without padding, tied tensors once."""
        return sum(owner.parameter_count(path, name) for path, name, owner in self.owners())

"""What the loader and export want of every model, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable
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

    def aliases(self, on_disk: Callable[[str], str] = str) -> dict[str, str]:
        """Modules of the checkpoint that have another path here -> that path: its names differ, or
        several of its modules are one. on_disk: the checkpoint's name of a tensor."""
        pieces = {
            on_disk(piece): path
            for path, name, owner in self.owners()
            for piece in owner.pieces(path, name)
        }
        tensors = {on_disk(f"{path}.weight"): path for path, _ in self.named_modules() if path}
        found = {name.rpartition(".")[0]: path for name, path in (tensors | pieces).items()}
        return {theirs: path for theirs, path in found.items() if theirs != path}

    @property
    def parameter_count(self) -> int:
        """As the checkpoint counts: without padding, tied tensors once."""
        return sum(owner.parameter_count(path, name) for path, name, owner in self.owners())

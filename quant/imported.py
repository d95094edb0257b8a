"""Checkpoints that were quantised elsewhere: their linears take their codes as they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..custom_ops.quantised_layout import PANEL
from ..models import CheckpointError, Plan
from ..models.checkpoint import TensorFiles
from ..models.layers import Linear
from .importers import Importer
from .modules import QuantisedLinear, SplitLinear, replace
from .recipe import Rule
from .weight import concatenate


class ImportedLinear(QuantisedLinear):
    """A Linear at `path` whose checkpoint holds codes. on_disk: the checkpoint's path of ours."""

    filling = "pack"

    def __init__(
        self,
        linear: Linear,
        path: str,
        importer: Importer,
        activation_bits: int,
        on_disk: Callable[[str], str],
    ) -> None:
        rule = Rule(path, 4, activation_bits=activation_bits)  # bits: until it is filled
        super().__init__(linear, rule)
        self._importer, self._on_disk = importer, on_disk
        self._parts = parts_of(linear, path)

    def pieces(self, path: str, name: str) -> dict[str, tuple[int, ...]]:
        if name != "weight":
            return super().pieces(path, name)
        return {
            part + end: shape
            for part, rows in self._parts.items()
            for end, shape in self._tensors(part, rows).items()
        }

    def piece_dtype(self, name: str) -> torch.dtype | None:
        return None if name == "weight" else torch.float32

    def fill(self, name: str, pieces: list[Tensor]) -> Tensor:
        if name != "weight":
            return super().fill(name, pieces)
        left, weights = iter(pieces), []
        for part, rows in self._parts.items():
            disk = self._on_disk(part)
            tensors = {disk + end: next(left) for end in self._tensors(part, rows)}
            weights.append(self._importer.read(disk, tensors, rows, self.columns))
        return self.hold(concatenate(weights))

    def _tensors(self, part: str, rows: int) -> dict[str, tuple[int, ...]]:
        """Ends of the names of a part's tensors, and their shapes."""
        disk = self._on_disk(part)
        expected = self._importer.tensors(disk, rows, self.columns)
        return {name.removeprefix(disk): shape for name, (shape, _) in expected.items()}


def parts_of(linear: Linear, path: str) -> dict[str, int]:
    """The paths of the checkpoint's linears that are one here, and their rows."""
    rows = linear.parts.values() or [linear.outputs]
    names = (name.removesuffix(".weight") for name in linear.pieces(path, "weight"))
    return dict(zip(names, rows, strict=True))


def swap_imported(plan: Plan, importer: Importer, activation_bits: int) -> None:
    """Replace the linears that `importer` takes. Raises CheckpointError."""

    def disk(path: str) -> str:
        return plan.on_disk(f"{path}.weight").removesuffix(".weight")

    def imported(linear: Linear, path: str) -> ImportedLinear:
        return ImportedLinear(linear, path, importer, activation_bits, disk)

    linears = {p: m for p, m in plan.model.named_modules() if isinstance(m, Linear)}
    swapped = 0
    for path, linear in linears.items():
        parts = parts_of(linear, path)
        taken = [part for part in parts if importer.takes(disk(part))]
        swapped += len(taken)
        if taken == list(parts) and _alike(plan, importer, list(map(disk, parts)), linear.inputs):
            replace(plan.model, path, imported(linear, path))
        elif taken:
            split = SplitLinear(linear)
            for part, (name, one) in zip(parts, list(split.parts.items()), strict=True):
                if part in taken:
                    assert isinstance(one, Linear)
                    split.parts[name] = imported(one, f"{path}.parts.{name}")
            replace(plan.model, path, split)
    if swapped == 0:
        raise CheckpointError(
            f"{plan.checkpoint} says that it is quantised, but no tensor of a linear is; take the"
            " original files"
        )


def _alike(plan: Plan, importer: Importer, paths: list[str], inputs: int) -> bool:
    """Whether linears that read the same x are quantised alike, with its columns in one order
    (GPTQ's act-order has another)."""

    def ends(path: str) -> dict[str, object]:
        expected = importer.tensors(path, PANEL, inputs)
        return {name.removeprefix(path): facts for name, facts in expected.items()}

    if any(ends(path) != ends(paths[0]) for path in paths):
        return False
    orders = [f"{path}{end}" for path in paths for end in ends(path) if end.endswith("g_idx")]
    with TensorFiles(plan.files) as tensors:
        read = [tensors.read(name, (inputs,), None) for name in orders if name in plan.files]
    return all(torch.equal(order, read[0]) for order in read)

"""AutoAWQ's "gemm" layout (Lin et al. 2023, arXiv:2306.00978; casper-hansen/AutoAWQ).

qweight int32 [K, N/8]   nibble i of word c is row k of output 8c + ORDER[i]
qzeros  int32 [K/g, N/8] the same order
scales        [K/g, N]
W[n, k] = (q - z) * s
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.errors import shortened
from ...models.families.family import Fields
from ..weight import QuantisedWeight
from .fields import (
    CALIBRATION,
    check_dynamic,
    check_group_size,
    check_pack_dtype,
    check_unread,
    read_bits,
)
from .importer import FLOATING, Expected, Importer, listed
from .layout import make_weight, words

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class AutoAWQ(Importer):
    recipe_name = "awq"
    marks = ("qweight", "qzeros")

    def __init__(self, fields: Fields, checkpoint: Path, names: Collection[str]) -> None:
        """Raises ValueError for what is not supported."""
        super().__init__(checkpoint, names)
        layouts = [fields.get(field) for field in ("version", "format", "checkpoint_format")]
        if fields.get("backend") == "llm-awq":
            layouts.append("llm-awq")
        for layout in layouts:
            if layout is not None and str(layout).lower() != "gemm":
                raise ValueError(
                    f"AWQ layout {shortened(layout)} is not supported; supported is 'gemm'"
                )
        self.bits = read_bits(fields, (4,), default=4)
        self.group_size = check_group_size(fields.get("group_size", 128))
        self.symmetric = not fields.flag("zero_point", True)
        self.excluded = fields.texts("modules_to_not_convert")
        check_pack_dtype(fields)
        check_dynamic(fields)
        # GPTQModel writes quant_method and zero_point twice; lm_head is seen from its tensors.
        check_unread(fields, "quantization field", CALIBRATION | {"method", "sym", "lm_head"})

    def describe(self) -> dict[str, Any]:
        return {
            "method": self.recipe_name,
            "bits": self.bits,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
        }

    def _excluded_by(self, path: str) -> str | None:
        return "modules_to_not_convert" if listed(path, self.excluded) else None

    def _parts(self, path: str, out_features: int, in_features: int) -> Expected:
        groups = 1 if self.group_size == -1 else -(-in_features // self.group_size)
        packed = words(out_features, self.bits)
        return {
            "qweight": ((in_features, packed), (torch.int32,)),
            "qzeros": ((groups, packed), (torch.int32,)),
            "scales": ((groups, out_features), FLOATING),
        }

    def _weight(
        self, path: str, parts: Mapping[str, Tensor], out_features: int, in_features: int
    ) -> QuantisedWeight:
        codes = _outputs(parts["qweight"], out_features)
        zeros = _outputs(parts["qzeros"], out_features)
        if self.symmetric and bool((zeros != 8).any()):
            raise ValueError(
                "qzeros holds zero points, which zero_point = false rules out; take the original"
                " files"
            )
        return make_weight(
            self.bits,
            self.group_size,
            codes,
            parts["scales"].t(),
            None if self.symmetric else zeros,
        )


def _outputs(packed: Tensor, out_features: int) -> Tensor:
    """int32 [R, N/8] -> uint8 [N, R]."""
    across = packed.t().contiguous()
    codes = torch.empty(len(across), 8, len(packed), dtype=torch.uint8)
    for nibble, output in enumerate(ORDER):
        codes[:, output] = (across >> 4 * nibble) & 15
    return codes.flatten(0, 1)[:out_features]

"""The layout of GPTQ checkpoints (Frantar et al. 2022, arXiv:2210.17323; AutoGPTQ, GPTQModel).

    qweight int32 [K*bits/32, N]   along K, the lowest bits first
    qzeros  int32 [K/g, N*bits/32] along N; checkpoint_format "gptq" stores z - 1, "gptq_v2" z
    scales        [K/g, N]
    g_idx   int   [K]              the group of each k; absent: k // g
    W[n, k] = (q - z) * s

With act-order (desc_act) the groups are of columns that were quantised together, not neighbours:
the columns are sorted by group here, and the weight's input_perm says how.
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
from .importer import FLOATING, INDEX, Expected, Importer, listed
from .layout import make_weight, unpack, words

_ONES = {4: 0x11111111, 8: 0x01010101}


class GPTQ(Importer):
    recipe_name = "gptq"
    marks = ("qweight", "qzeros")

    def __init__(self, fields: Fields, checkpoint: Path, names: Collection[str]) -> None:
        """Raises ValueError for what is not supported."""
        super().__init__(checkpoint, names)
        if fields.flag("is_marlin_format"):
            raise ValueError(
                "GPTQ layout 'marlin' is not supported; take the checkpoint it was made from"
            )
        layout = fields.text("checkpoint_format", fields.text("format", "gptq"))
        if layout not in ("gptq", "gptq_v2"):
            raise ValueError(
                f"GPTQ layout {shortened(layout)} is not supported; supported are 'gptq' and"
                " 'gptq_v2'"
            )
        self.bits = read_bits(fields, (4, 8))
        self.group_size = check_group_size(fields.get("group_size", 128))
        self.symmetric = fields.flag("sym")  # absent: its zero points are read
        self.desc_act = fields.flag("desc_act")
        self.less_one = layout == "gptq"
        self.lm_head = fields.flag("lm_head")
        self.excluded = fields.texts("modules_to_not_convert")
        quantiser = fields.section("meta").get("quantizer")
        self.by_word = "gptqmodel" in str(quantiser)
        check_pack_dtype(fields)
        check_dynamic(fields)
        # GPTQModel writes quant_method and checkpoint_format twice; the tensors say which modules.
        repeated = {"method", "format", "modules_in_block_to_quantize"}
        check_unread(fields, "quantization field", CALIBRATION | repeated)

    def describe(self) -> dict[str, Any]:
        return {
            "method": self.recipe_name,
            "bits": self.bits,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
            "desc_act": self.desc_act,
        }

    def _excluded_by(self, path: str) -> str | None:
        if path.split(".")[-1] == "lm_head" and not self.lm_head:
            return "lm_head"
        return "modules_to_not_convert" if listed(path, self.excluded) else None

    def _parts(self, path: str, out_features: int, in_features: int) -> Expected:
        groups = 1 if self.group_size == -1 else -(-in_features // self.group_size)
        parts: Expected = {
            "qweight": ((words(in_features, self.bits), out_features), (torch.int32,)),
            "qzeros": ((groups, words(out_features, self.bits)), (torch.int32,)),
            "scales": ((groups, out_features), FLOATING),
        }
        # Without g_idx, an act-order weight cannot be read: it is asked for.
        if self._holds(f"{path}.g_idx") or (self.desc_act and groups > 1):
            parts["g_idx"] = ((in_features,), INDEX)
        return parts

    def _weight(
        self, path: str, parts: Mapping[str, Tensor], out_features: int, in_features: int
    ) -> QuantisedWeight:
        codes = unpack(parts["qweight"].t(), self.bits, in_features)
        zeros = self._zeros(parts["qzeros"], out_features)
        g_idx, scales = parts.get("g_idx"), parts["scales"].t()
        return make_weight(self.bits, self.group_size, codes, scales, zeros, g_idx)

    def _zeros(self, qzeros: Tensor, out_features: int) -> Tensor | None:
        """Zero points uint8 [N, G]; None: symmetric. Raises ValueError."""
        stored = unpack(qzeros, self.bits, out_features).t()
        if self.symmetric:
            # Some files of "gptq" hold z: being symmetric, they have one meaning either way.
            middle = 2 ** (self.bits - 1)
            if not bool((stored == middle).all() or (stored == middle - 1).all()):
                raise ValueError(
                    "qzeros holds zero points, which sym = true rules out; take the original files"
                )
            return None
        if not self.less_one:
            return stored
        if self.by_word:
            # GPTQModel subtracts from a whole word, where a zero point of 0 borrows from the next.
            return unpack(qzeros + _ONES[self.bits], self.bits, out_features).t()
        if bool((stored == 255).any()):
            raise ValueError("qzeros holds a zero point of 256; quantise again as 'gptq_v2'")
        return stored + 1

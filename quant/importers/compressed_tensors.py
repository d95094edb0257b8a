"""compressed-tensors, the layouts "pack-quantized" and "int-quantized" (vllm-project).

  weight_packed     int32 [N, K*bits/32]   along K, the lowest bits first, q + 2^(bits-1)
  weight_zero_point int32 [N*bits/32, G]   along N, likewise; where not symmetric
  weight_shape      int   [2]
or
  weight            int8  [N, K]
  weight_zero_point int8  [N, G]

  weight_scale            [N, G]           G = 1 by channel, K/g by group
  weight_g_idx      int   [K]              the group of each k, with actorder "group"
  W[n, k] = (q - z) * s
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models.errors import CheckpointError, shortened
from ...models.families.family import Fields
from ..weight import QuantisedWeight
from .fields import check_unread
from .importer import FLOATING, INDEX, Expected, Importer
from .layout import make_weight, unpack, words
from .schemes import Scheme, check_patterns, matches, read_group, read_scheme

_NAMES = ("weight_scale", "weight_g_idx")


def read_compressed_tensors(
    fields: Fields, checkpoint: Path, names: Collection[str]
) -> Importer | None:
    """None: the weights are stored as they were. Raises ValueError for what is not supported."""
    groups = fields.section("config_groups")
    layout = fields.text("format", "fakequant" if groups else "dense")
    sparsity = Fields(fields.section("sparsity_config")).text("format", "dense")
    if sparsity != "dense":
        raise ValueError(
            f"sparsity {shortened(sparsity)} is not supported; take a dense checkpoint"
        )
    for field, what in (
        ("kv_cache_scheme", "quantised key-value caches"),
        ("transform_config", "transforms of the activations"),
        ("moe_sparsity_config", "sparse experts"),
    ):
        if fields.get(field):
            raise ValueError(f"{field} is set; {what} are not supported: take one without")
    if layout == "dense":
        scales = any(name.endswith(".weight_scale") for name in names)
        if scales or any(read_group(n, g).get("input_activations") for n, g in groups.items()):
            raise ValueError(
                "format 'dense' with scales or quantised activations is not supported; save the"
                " model compressed"
            )
        return None
    importer = CompressedTensors(fields, layout, checkpoint, names)
    inert = ("quantization_status", "global_compression_ratio", "version")
    check_unread(fields, "quantization field", inert)
    return importer


class CompressedTensors(Importer):
    recipe_name = "compressed-tensors"
    marks = ("weight_packed", "weight_scale")

    def __init__(
        self, fields: Fields, layout: str, checkpoint: Path, names: Collection[str]
    ) -> None:
        super().__init__(checkpoint, names)
        self.schemes: list[tuple[list[str], Scheme]] = []
        if not fields.section("config_groups"):
            raise ValueError("field 'config_groups' is missing or empty; take the original file")
        for name, values in fields.section("config_groups").items():
            group = read_group(name, values)
            self.schemes.append((group.texts("targets"), read_scheme(name, group, layout)))
        activations = {scheme.activation_bits for _, scheme in self.schemes}
        if len(activations) != 1:
            raise ValueError(
                "config_groups quantises activations of some modules only, which is not supported;"
                " quantise all alike"
            )
        (self.activation_bits,) = activations
        self.ignore = fields.texts("ignore")
        for patterns in [self.ignore, *(targets for targets, _ in self.schemes)]:
            check_patterns(patterns)

    def describe(self) -> dict[str, Any]:
        groups = [asdict(scheme) for _, scheme in self.schemes]
        return {"method": self.recipe_name, "groups": groups}

    def _excluded_by(self, path: str) -> str | None:
        return "ignore" if any(matches(path, pattern) for pattern in self.ignore) else None

    def _scheme(self, path: str) -> Scheme:
        """Of the groups that name the module, or else match its name, or else its class."""
        for by in (str.__eq__, matches, lambda _, target: target == "Linear"):
            found = {s for targets, s in self.schemes if any(by(path, t) for t in targets)}
            if len(found) > 1:
                raise CheckpointError(
                    f"{self.checkpoint}: several config_groups claim {path}; leave it to one"
                )
            if found:
                return found.pop()
        raise CheckpointError(
            f"{self.checkpoint}: no target in config_groups matches {path}, which is quantised;"
            " take the original files"
        )

    def _parts(self, path: str, out_features: int, in_features: int) -> Expected:
        scheme = self._scheme(path)
        bits, size = scheme.bits, scheme.group_size
        groups = 1 if size == -1 else -(-in_features // size)
        parts: Expected = {"weight_scale": ((out_features, groups), FLOATING)}
        zeros: tuple[tuple[int, ...], tuple[torch.dtype, ...]]
        zeros = ((out_features, groups), (torch.int8,))
        if scheme.format == "pack-quantized":
            parts["weight_packed"] = ((out_features, words(in_features, bits)), (torch.int32,))
            parts["weight_shape"] = ((2,), INDEX)
            if not scheme.symmetric:
                zeros = ((words(out_features, bits), groups), (torch.int32,))
        else:
            parts["weight"] = ((out_features, in_features), (torch.int8,))
        # Older files hold zeros for symmetric weights too.
        if not scheme.symmetric or self._holds(f"{path}.weight_zero_point"):
            parts["weight_zero_point"] = zeros
        if scheme.actorder == "group" or self._holds(f"{path}.weight_g_idx"):
            parts["weight_g_idx"] = ((in_features,), INDEX)
        return parts

    def _weight(
        self, path: str, parts: Mapping[str, Tensor], out_features: int, in_features: int
    ) -> QuantisedWeight:
        scheme = self._scheme(path)
        bits, middle = scheme.bits, 2 ** (scheme.bits - 1)
        if scheme.format == "pack-quantized":
            shape = parts["weight_shape"].tolist()
            if shape != [out_features, in_features]:
                raise ValueError(
                    f"weight_shape says {shape}, config.json wants {[out_features, in_features]}"
                )
            codes = unpack(parts["weight_packed"], bits, in_features)
        else:
            codes = _offset(parts["weight"], bits, "weight")
        zeros = parts.get("weight_zero_point")
        if zeros is None:
            pass
        elif zeros.dtype == torch.int32:
            zeros = unpack(zeros.t(), bits, out_features).t()
        else:
            zeros = _offset(zeros, bits, "weight_zero_point")
        if scheme.symmetric and zeros is not None:
            if bool((zeros != middle).any()):
                raise ValueError("weight_zero_point is not zero, though symmetric = true")
            zeros = None
        g_idx = parts.get("weight_g_idx")
        if g_idx is not None and bool((g_idx == -1).all()):  # never set
            g_idx = None
        scales = parts["weight_scale"]
        return make_weight(bits, scheme.group_size, codes, scales, zeros, g_idx, _NAMES)


def _offset(values: Tensor, bits: int, name: str) -> Tensor:
    """int8 -> uint8, 2^(bits-1) higher. Raises ValueError if one takes more bits."""
    codes: Tensor = values.contiguous().view(torch.uint8) + 2 ** (bits - 1)  # modulo 256
    if bool((codes > 2**bits - 1).any()):
        raise ValueError(f"{name} holds integers of more than {bits} bits; take the original files")
    return codes

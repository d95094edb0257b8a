"""The modules that take the place of linears and embeddings: ONNX's weights and one operator.

Float weights are [outputs, inputs] as checkpoints have them. Codes stay codes, in the layout of
ONNX Runtime's MatMulNBits: uint8 [outputs, groups, bytes of a group], 4-bit ones with the even
column low.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...custom_ops.activation import activated
from ...custom_ops.linear import unpack_linear
from ...custom_ops.quantised_layout import layout_of, scales_of_groups, unpack
from ...models.layers import Embedding, LayerNorm, Linear, RMSNorm
from ...quant.modules import Quantised, QuantisedEmbedding, QuantisedLinear, replace
from .attention import OPSET

_RUNTIME = "com.microsoft::"  # ONNX Runtime's own operators
# Of MatMulNBits: how x may be rounded. 1 is float32, 4 is int8 in the weight's groups.
_ACCURACY = {8: 4, 16: 1, 32: 1}


def swap(model: nn.Module) -> None:
    """Give a model ONNX's weights, module by module; what was tied stays one."""
    held: dict[int, tuple[Tensor, list[Tensor]]] = {}  # by packed weight, which is kept until done
    for path, module in list(model.named_modules()):
        made = _made(module, held)
        if made is not None:
            replace(model, path, made)


def _made(module: nn.Module, held: dict[int, tuple[Tensor, list[Tensor]]]) -> nn.Module | None:
    """What stands for the module in ONNX, if anything does."""
    if isinstance(module, RMSNorm):
        return OnnxRMSNorm(module)
    if isinstance(module, LayerNorm):
        return OnnxLayerNorm(module)
    if not isinstance(module, Linear | Embedding | Quantised):
        return None
    packed = module.weight
    if id(packed) not in held:
        held[id(packed)] = packed, _tensors(module)
    tensors = held[id(packed)][1]
    if isinstance(module, Linear):
        return OnnxLinear(module, *tensors)
    if isinstance(module, Embedding):
        return OnnxEmbedding(*tensors)
    if isinstance(module, QuantisedLinear):
        return NBitsLinear(module, tensors)
    assert isinstance(module, QuantisedEmbedding)
    return NBitsEmbedding(module, tensors)


def _tensors(module: Any) -> list[Tensor]:
    """A packed weight as ONNX has it: the matrix, or codes, scales and, if any, zero points."""
    if isinstance(module, Linear):
        return [unpack_linear(module.weight, module.outputs, module.inputs).contiguous()]
    if isinstance(module, Embedding):
        return [module.matrix()]
    codes, scales, zeros, multipliers = unpack(
        module.weight, module.bits, module.rows, module.columns
    )
    size = layout_of(module.weight, module.bits).group_size
    scales, size = scales_of_groups(scales, multipliers, size)
    groups = -(-module.columns // size)
    scales = scales[:, :groups]
    codes = F.pad(codes, (0, groups * size - module.columns))
    blocks = _bytes(codes, module.bits).view(module.rows, groups, -1)
    return [blocks, scales.float(), *([] if zeros is None else [_bytes(zeros, module.bits)])]


def _bytes(values: Tensor, bits: int) -> Tensor:
    """uint8 [rows, columns] with two 4-bit values in each byte, the even one low."""
    if bits == 8:
        return values
    even = F.pad(values, (0, values.shape[1] % 2))
    return even[:, ::2] | even[:, 1::2] << 4


def _operator(
    name: str, inputs: list[Tensor | None], shape: tuple[int, ...], **attributes: Any
) -> Tensor:
    """The float32 output of one operator."""
    version = 1 if name.startswith(_RUNTIME) else OPSET
    return torch.onnx.ops.symbolic(
        name, inputs, attributes, dtype=torch.float32, shape=shape, version=version
    )


class OnnxRMSNorm(nn.Module):
    """torch's own, which becomes RMSNormalization."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.eps, self.weight = norm.eps, norm.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class OnnxLayerNorm(nn.Module):
    """torch's own, which becomes LayerNormalization."""

    def __init__(self, norm: LayerNorm) -> None:
        super().__init__()
        self.eps, self.weight, self.bias = norm.eps, norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class OnnxLinear(nn.Module):
    """Gemm. A bfloat16 weight is widened: ONNX Runtime's CPU multiplies float32."""

    rounds = False
    weight: Tensor

    def __init__(self, linear: Linear, weight: Tensor) -> None:
        super().__init__()
        self.bias, self.outputs = linear.bias, linear.outputs
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor, activation: str | None = None, gated: bool = False) -> Tensor:
        inputs = [x, self.weight.float(), self.bias]
        y = _operator("Gemm", inputs, (x.shape[0], self.outputs), transB=1)
        return activated(y, activation, gated)


class OnnxEmbedding(nn.Module):
    """Gather."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, tokens_T: Tensor) -> Tensor:
        return F.embedding(tokens_T, self.weight).float()


class NBits(nn.Module):
    """Codes, scales [outputs, groups] and zero points, if any, packed like the codes."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None

    def __init__(self, module: Quantised, tensors: list[Tensor]) -> None:
        super().__init__()
        self.bits, self.rows, self.columns = module.bits, module.rows, module.columns
        self.group_size = layout_of(module.weight, module.bits).scale_group
        for name, tensor in zip(("codes", "scales", "zeros"), [*tensors, None], strict=False):
            self.register_buffer(name, tensor)


class NBitsLinear(NBits):
    """MatMulNBits; what x is reordered and scaled by goes before it."""

    rounds = False
    input_scale: Tensor | None
    input_perm: Tensor | None

    def __init__(self, linear: QuantisedLinear, tensors: list[Tensor]) -> None:
        super().__init__(linear, tensors)
        self.bias, self.accuracy = linear.bias, _ACCURACY[linear.rule.activation_bits]
        self.register_buffer("input_scale", linear.input_scale)
        self.register_buffer("input_perm", linear.input_perm)

    def forward(self, x: Tensor, activation: str | None = None, gated: bool = False) -> Tensor:
        if self.input_perm is not None:
            x = x.index_select(1, self.input_perm)
        if self.input_scale is not None:
            x = x * self.input_scale
        y = _operator(
            f"{_RUNTIME}MatMulNBits",
            [x, self.codes, self.scales, self.zeros, None, self.bias],
            (x.shape[0], self.rows),
            K=self.columns,
            N=self.rows,
            bits=self.bits,
            block_size=self.group_size,
            accuracy_level=self.accuracy,
        )
        return activated(y, activation, gated)


class NBitsEmbedding(NBits):
    """GatherBlockQuantized; groups are whole there, so what is beyond the columns is cut off."""

    def forward(self, tokens_T: Tensor) -> Tensor:
        rows = _operator(
            f"{_RUNTIME}GatherBlockQuantized",
            [self.codes.flatten(1), tokens_T, self.scales, self.zeros],
            (tokens_T.shape[0], self.scales.shape[1] * self.group_size),
            bits=self.bits,
            block_size=self.group_size,
            gather_axis=0,
            quantize_axis=1,
        )
        return rows[:, : self.columns]

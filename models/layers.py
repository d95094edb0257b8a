"""The parts of a decoder, on our ops. Activations are float32; weights are stored as `dtype`.

Shape suffixes: T tokens of all sequences, H hidden, N heads, K key-value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..custom_ops.linear import pack_linear, unpack_linear
from .config import Config
from .rope import Angles

PieceDtype = torch.dtype | Literal["float"] | None


def parameter(shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)


def filled(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def packed_shape(rows: int, columns: int, dtype: torch.dtype) -> torch.Size:
    """Shape that `pack_linear` gives a weight [rows, columns]."""
    return pack_linear(torch.empty(rows, columns, dtype=dtype, device="meta")).shape


class Stored(nn.Module):
    """A module with tensors of its own, which may lie in memory other than on disk.

    filling: what `fill` does, in the compile record.
    """

    filling: ClassVar[str] = "pack"

    def pieces(self, path: str, name: str) -> dict[str, tuple[int, ...]]:
        """The tensors of a checkpoint that make up its tensor `name`, and their shapes.

        `path` is the module's own, "model.layers.0.mlp.gate_up_proj".
        """
        return {f"{path}.{name}": tuple(getattr(self, name).shape)}

    def piece_dtype(self, name: str) -> PieceDtype:
        """What `fill` wants the pieces of `name` in; "float": any floating-point dtype, None: any,
        both as they are in the checkpoint."""
        dtype: torch.dtype = getattr(self, name).dtype
        return dtype

    def fill(self, name: str, pieces: list[Tensor]) -> Tensor:
        """The tensor as the module holds it, from those of `pieces`."""
        (tensor,) = pieces
        return tensor

    def parameter_count(self, path: str, name: str) -> int:
        """Of the tensor `name`, as the checkpoint's model counts: without padding."""
        return sum(torch.Size(shape).numel() for shape in self.pieces(path, name).values())


class Linear(Stored):
    """y = x W^T + b with W packed. Several of a checkpoint's that read the same x may be one here:
    `outputs` names them, with their sizes, in the order of y's columns.

    many_rows: x has many rows, as an encoder's, whatever the batch.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int | Mapping[str, int],
        bias: bool,
        dtype: torch.dtype,
        transposed: bool = False,
        many_rows: bool = False,
    ) -> None:
        super().__init__()
        self.many_rows = many_rows
        self.parts = {} if isinstance(outputs, int) else dict(outputs)
        self.inputs, self.transposed = inputs, transposed
        self.outputs = outputs if isinstance(outputs, int) else sum(outputs.values())
        self.weight = parameter(packed_shape(self.outputs, inputs, dtype), dtype)
        self.bias = parameter((self.outputs,), torch.float32) if bias else None

    @property
    def rounds(self) -> bool:
        """Whether x is rounded to 8 bits, bfloat16's or int8's, and so may be what is made of y."""
        return self.weight.dtype == torch.bfloat16

    def forward(self, x: Tensor, activation: str | None = None, gated: bool = False) -> Tensor:
        """With an activation, too, `activated(y, activation, gated)`."""
        name = "linear_many" if self.many_rows and not self.rounds else "linear"
        op = getattr(torch.ops.ingot, f"{name}_activated" if activation else name)
        done = (activation, gated) if activation else ()
        out: Tensor = op(x, self.weight, self.bias, self.outputs, *done)
        return out

    def pieces(self, path: str, name: str) -> dict[str, tuple[int, ...]]:
        parent, _, own = path.rpartition(".")
        shapes: dict[str, tuple[int, ...]] = {}
        for part, outputs in (self.parts or {own: self.outputs}).items():
            matrix = (self.inputs, outputs) if self.transposed else (outputs, self.inputs)
            where = ".".join(filter(None, (parent, part, name)))
            shapes[where] = (outputs,) if name == "bias" else matrix
        return shapes

    def fill(self, name: str, pieces: list[Tensor]) -> Tensor:
        return torch.cat(pieces) if name == "bias" else pack_linear(self.matrix(pieces))

    def matrix(self, pieces: list[Tensor]) -> Tensor:
        """W [outputs, inputs] from a checkpoint's tensors."""
        parts = [w.t() if self.transposed else w for w in pieces]
        return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.parts or self.outputs}, bias={self.bias is not None}"


class Embedding(Stored):
    """Rows of a packed matrix [vocab, H]; a tied head holds the same parameter."""

    def __init__(self, vocab_size: int, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.weight = parameter(packed_shape(vocab_size, hidden_size, dtype), dtype)

    def forward(self, tokens_T: Tensor) -> Tensor:
        out: Tensor = torch.ops.ingot.embedding(tokens_T, self.weight, self.hidden_size)
        return out

    def pieces(self, path: str, name: str) -> dict[str, tuple[int, ...]]:
        return {f"{path}.{name}": (self.vocab_size, self.hidden_size)}

    def fill(self, name: str, pieces: list[Tensor]) -> Tensor:
        return pack_linear(*pieces)

    def matrix(self) -> Tensor:
        """[vocab, H]"""
        return unpack_linear(self.weight, self.vocab_size, self.hidden_size).contiguous()


class UntiedEmbedding(Embedding):
    """One that no head shares: rows lie in one piece, as in the checkpoint. A packed matrix spreads
    each over as many cache lines as it has values or pairs of them."""

    def __init__(self, vocab_size: int, hidden_size: int, dtype: torch.dtype) -> None:
        super().__init__(vocab_size, hidden_size, dtype)
        self.weight = parameter((vocab_size, hidden_size), dtype)

    def forward(self, tokens_T: Tensor) -> Tensor:
        return self.weight[tokens_T].float()

    def fill(self, name: str, pieces: list[Tensor]) -> Tensor:
        return Stored.fill(self, name, pieces)

    def matrix(self) -> Tensor:
        return self.weight


class Table(Stored):
    """Rows of a small float32 matrix: learned positions, token types."""

    def __init__(self, rows: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = parameter((rows, hidden_size), torch.float32)

    def forward(self, rows_T: Tensor) -> Tensor:
        return self.weight[rows_T]


class RMSNorm(Stored):
    """x / rms(x) * weight (Zhang and Sennrich 2019), over the last dimension.

    plus_one: the checkpoint stores weight - 1 (Gemma).
    """

    def __init__(self, size: int, eps: float, plus_one: bool = False) -> None:
        super().__init__()
        self.eps, self.plus_one = eps, plus_one
        self.weight = parameter((size,), torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight

    def fill(self, name: str, pieces: list[Tensor]) -> Tensor:
        (weight,) = pieces
        return weight + 1 if self.plus_one else weight

    def extra_repr(self) -> str:
        return f"{self.eps}"


class LayerNorm(Stored):
    """(x - mean) / deviation * weight + bias (Ba et al. 2016), over the last dimension. Of torch's
    own Inductor makes four loops over all rows, of this one."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = parameter((size,), torch.float32)
        self.bias = parameter((size,), torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias

    def extra_repr(self) -> str:
        return f"{self.eps}"


def make_norm(config: Config, size: int) -> Stored:
    if config.norm == "layer":
        return LayerNorm(size, config.norm_eps)
    return RMSNorm(size, config.norm_eps, plus_one=config.norm == "rms_plus_one")


class Step(NamedTuple):
    """What all layers of one forward share: where the tokens' cache lies."""

    slot_mapping: Tensor
    query_start: Tensor
    seq_lens: Tensor
    block_table: Tensor


class Attention(nn.Module):
    """Causal self-attention over the paged cache (Ainslie et al. 2023 for grouped heads)."""

    def __init__(
        self, config: Config, window: int | None, dtype: torch.dtype, kv_dtype: str
    ) -> None:
        super().__init__()
        c = config
        self.head_dim, self.window, self.kv_dtype = c.head_dim, window, kv_dtype
        self.scale = c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale
        self.softcap = c.attention_softcap
        queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        self.sizes = [queries, keys, keys]
        parts = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
        outputs = sum(self.sizes) if c.fused_projections else parts
        self.qkv_proj = Linear(c.hidden_size, outputs, c.qkv_bias, dtype, c.transposed)
        self.o_proj = Linear(queries, c.hidden_size, c.output_bias, dtype, c.transposed)
        self.query_key_norm = c.query_key_norm
        if self.query_key_norm != "none":
            per_head = self.query_key_norm == "head"
            self.q_norm = make_norm(c, c.head_dim if per_head else queries)
            self.k_norm = make_norm(c, c.head_dim if per_head else keys)

    def forward(self, x_TH: Tensor, angles: Angles | None, step: Step, cache: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x_TH).split(self.sizes, dim=-1)
        if self.query_key_norm == "full":
            q, k = self.q_norm(q), self.k_norm(k)
        q_TND, k_TKD, v_TKD = (x.unflatten(-1, (-1, self.head_dim)) for x in (q, k, v))
        if self.query_key_norm == "head":
            q_TND, k_TKD = self.q_norm(q_TND), self.k_norm(k_TKD)
        out_TND = torch.ops.ingot.paged_attention(
            q_TND,
            k_TKD,
            v_TKD,
            cache,
            step.slot_mapping,
            step.query_start,
            step.seq_lens,
            step.block_table,
            angles.cos if angles else None,
            angles.sin if angles else None,
            self.scale,
            self.window,
            self.softcap,
            0,
            self.kv_dtype,
        )
        out: Tensor = self.o_proj(out_TND.flatten(1))
        return out


class MLP(nn.Module):
    """down(act(gate(x)) * up(x)) (Shazeer 2020), or without a gate down(act(up(x)))."""

    def __init__(
        self,
        hidden: int,
        inner: int,
        activation: str,
        dtype: torch.dtype,
        *,
        bias: bool,
        gated: bool = False,
        fused: bool = False,
        transposed: bool = False,
        many_rows: bool = False,
    ) -> None:
        super().__init__()
        self.activation, self.gated = activation, gated
        if gated:
            outputs = 2 * inner if fused else {"gate_proj": inner, "up_proj": inner}
            self.gate_up_proj = Linear(hidden, outputs, bias, dtype, transposed, many_rows)
        else:
            self.up_proj = Linear(hidden, inner, bias, dtype, transposed, many_rows)
        self.down_proj = Linear(inner, hidden, bias, dtype, transposed, many_rows)

    def forward(self, x_TH: Tensor) -> Tensor:
        first = self.gate_up_proj if self.gated else self.up_proj
        out: Tensor = self.down_proj(first(x_TH, self.activation, self.gated))
        return out

    def extra_repr(self) -> str:
        return self.activation

"""Encoders: every token sees every other of its sequence. BERT for text, ViT for images.

Shape suffixes: T tokens of all sequences, B sequences or images, H hidden, N heads, D head_dim, C
channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import EncoderConfig, ImageConfig, TextEncoderConfig
from .layers import MLP, LayerNorm, Linear, Stored, Table, UntiedEmbedding, parameter
from .model import Model


class SelfAttention(nn.Module):
    """many_rows: of the output."""

    def __init__(self, config: EncoderConfig, dtype: torch.dtype, many_rows: bool) -> None:
        super().__init__()
        self.head_dim, size = config.head_dim, config.hidden_size
        parts = {"query": size, "key": size, "value": size}
        self.qkv_proj = Linear(size, parts, config.qkv_bias, dtype, many_rows=True)
        self.o_proj = Linear(size, size, True, dtype, many_rows=many_rows)

    def forward(self, x_TH: Tensor, query_start: Tensor, rows: Tensor | None = None) -> Tensor:
        """rows: of the output, those that are wanted; None for all."""
        qkv = self.qkv_proj(x_TH).unflatten(-1, (3, -1, self.head_dim))
        q_TND, k_TND, v_TND = qkv.unbind(1)
        op = torch.ops.ingot.attention_bf16 if self.qkv_proj.rounds else torch.ops.ingot.attention
        out_TND = op(q_TND, k_TND, v_TND, query_start, self.head_dim**-0.5)
        out: Tensor = self.o_proj(_only(rows, out_TND.flatten(1)))
        return out


def _only(rows: Tensor | None, x_TH: Tensor) -> Tensor:
    return x_TH if rows is None else x_TH[rows]


class EncoderBlock(nn.Module):
    """Attention and MLP, each with a residual and a LayerNorm before it or behind the sum.

    rows: of the output, those that are wanted. All tokens are attended to; what comes after that
    is done for these alone.
    many_rows: whether `forward` is called without such.
    """

    def __init__(self, config: EncoderConfig, dtype: torch.dtype, many_rows: bool = True) -> None:
        super().__init__()
        size = config.hidden_size
        self.norms = config.norms
        self.attention = SelfAttention(config, dtype, many_rows)
        self.attention_norm = LayerNorm(size, config.norm_eps)
        inner, activation = config.intermediate_size, config.activation
        self.mlp = MLP(size, inner, activation, dtype, bias=True, many_rows=many_rows)
        self.mlp_norm = LayerNorm(size, config.norm_eps)

    def forward(self, x_TH: Tensor, query_start: Tensor, rows: Tensor | None = None) -> Tensor:
        stream_TH = _only(rows, x_TH)
        if self.norms == "after":
            x_TH = self.attention_norm(stream_TH + self.attention(x_TH, query_start, rows))
            after: Tensor = self.mlp_norm(x_TH + self.mlp(x_TH))
            return after
        x_TH = stream_TH + self.attention(self.attention_norm(x_TH), query_start, rows)
        before: Tensor = x_TH + self.mlp(self.mlp_norm(x_TH))
        return before


class TextEmbeddings(nn.Module):
    def __init__(self, config: TextEncoderConfig, dtype: torch.dtype) -> None:
        super().__init__()
        c = config
        self.word_embeddings = UntiedEmbedding(c.vocab_size, c.hidden_size, dtype)
        self.position_embeddings = Table(c.max_seq_len, c.hidden_size)
        self.token_type_embeddings = Table(c.type_vocab_size, c.hidden_size)
        self.norm = LayerNorm(c.hidden_size, c.norm_eps)

    def forward(self, tokens: Tensor, token_type_ids: Tensor, positions: Tensor) -> Tensor:
        words = self.word_embeddings(tokens)
        others = self.position_embeddings(positions) + self.token_type_embeddings(token_type_ids)
        out: Tensor = self.norm(words + others)
        return out


class TextEncoder(Model):
    """BERT (Devlin et al. 2019) without its pooler; `forward` is the graph contract of encoders.

    tokens, token_type_ids, positions [T], query_start [B + 1]: int64. Returns float32 [T, H].
    """

    kind = "encoder"

    def __init__(self, config: TextEncoderConfig, dtype: torch.dtype) -> None:
        super().__init__(config, dtype)
        self.embeddings = TextEmbeddings(config, dtype)
        blocks = (EncoderBlock(config, dtype) for _ in range(config.num_layers))
        self.layers = nn.ModuleList(blocks)

    def forward(
        self, tokens: Tensor, token_type_ids: Tensor, positions: Tensor, query_start: Tensor
    ) -> Tensor:
        x_TH: Tensor = self.embeddings(tokens, token_type_ids, positions)
        for block in self.layers:
            x_TH = block(x_TH, query_start)
        return x_TH


class PatchProjection(Linear):
    """A convolution whose stride is its size: a product over patches [.., C * patch * patch]."""

    def __init__(self, config: ImageConfig, dtype: torch.dtype) -> None:
        self.kernel = (config.num_channels, config.patch_size, config.patch_size)
        inputs = torch.Size(self.kernel).numel()
        super().__init__(inputs, config.hidden_size, True, dtype, many_rows=True)

    def pieces(self, path: str, name: str) -> dict[str, tuple[int, ...]]:
        shape = (self.outputs,) if name == "bias" else (self.outputs, *self.kernel)
        return {f"{path}.{name}": shape}

    def matrix(self, pieces: list[Tensor]) -> Tensor:
        return pieces[0].flatten(1)


class ImageEmbeddings(Stored):
    """Patches as tokens, behind a class token and, if distilled, a distillation token."""

    def __init__(self, config: ImageConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.c = c = config
        self.projection = PatchProjection(c, dtype)
        self.cls_token = parameter((1, 1, c.hidden_size), torch.float32)
        if c.distilled:
            self.distillation_token = parameter((1, 1, c.hidden_size), torch.float32)
        self.position_embeddings = parameter((1, c.tokens, c.hidden_size), torch.float32)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """[B, tokens, H]"""
        c, size = self.c, self.c.patch_size
        batch, grid = pixels_BCHW.shape[0], c.image_size // size
        split = pixels_BCHW.reshape(batch, c.num_channels, grid, size, grid, size)
        patches = split.permute(0, 2, 4, 1, 3, 5).reshape(batch * grid * grid, -1)
        parts = [self.cls_token.expand(batch, -1, -1)]
        if c.distilled:
            parts.append(self.distillation_token.expand(batch, -1, -1))
        parts.append(self.projection(patches).view(batch, grid * grid, c.hidden_size))
        return torch.cat(parts, dim=1) + self.position_embeddings

    def pieces(self, path: str, name: str) -> dict[str, tuple[int, ...]]:
        shapes = super().pieces(path, name)
        if name == "position_embeddings":
            tokens = self._trained_grid() ** 2 + 1 + self.c.distilled
            shapes = {where: (1, tokens, self.c.hidden_size) for where in shapes}
        return shapes

    def fill(self, name: str, pieces: list[Tensor]) -> Tensor:
        (tensor,) = pieces
        trained, grid = self._trained_grid(), self.c.image_size // self.c.patch_size
        if name != "position_embeddings" or trained == grid:
            return tensor
        special = 1 + self.c.distilled
        square = tensor[:, special:].reshape(1, trained, trained, -1).permute(0, 3, 1, 2)
        scaled = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
        return torch.cat((tensor[:, :special], scaled.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)

    def _trained_grid(self) -> int:
        return self.c.trained_image_size // self.c.patch_size


class ImageClassifier(Model):
    """ViT (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021).

    pixel_values float32 [B, C, image_size, image_size] -> logits float32 [B, num_labels].
    """

    kind = "image-classifier"
    config: ImageConfig

    def __init__(self, config: ImageConfig, dtype: torch.dtype) -> None:
        super().__init__(config, dtype)
        self.embeddings = ImageEmbeddings(config, dtype)
        last = config.num_layers - 1
        blocks = (EncoderBlock(config, dtype, layer < last) for layer in range(config.num_layers))
        self.layers = nn.ModuleList(blocks)
        self.final_norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.classifier = Linear(config.hidden_size, config.num_labels, True, dtype)
        if config.two_heads:
            self.distillation = Linear(config.hidden_size, config.num_labels, True, dtype)

    def forward(self, pixel_values: Tensor) -> Tensor:
        batch, tokens = pixel_values.shape[0], self.config.tokens
        query_start = torch.arange(batch + 1, device=pixel_values.device) * tokens
        # The heads read an image's first token, and if there are two the second: of the last block
        # only these are wanted.
        read = torch.arange(1 + self.config.two_heads, device=pixel_values.device)
        rows = (query_start[:-1, None] + read).flatten()
        x_TH = self.embeddings(pixel_values).flatten(0, 1)
        *others, last = self.layers
        for block in others:
            x_TH = block(x_TH, query_start)
        x_BTH = last(x_TH, query_start, rows).view(batch, len(read), -1)
        logits: Tensor = self.classifier(self.final_norm(x_BTH[:, 0]))
        if self.config.two_heads:
            logits = (logits + self.distillation(self.final_norm(x_BTH[:, 1]))) / 2
        return logits

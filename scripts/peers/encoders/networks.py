"""The encoders as transformers has them: one tensor in, one out, in every environment."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

# token ids [B, 128] -> hidden states [B, 128, 384]; pixels [B, 3, 224, 224] -> logits [B, 1000]
CONFIGS = {
    "minilm": transformers.BertConfig(
        architectures=["BertModel"],
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    ),
    "vit": transformers.ViTConfig(architectures=["ViTForImageClassification"], num_labels=1000),
}
SEQUENCE = 128


class Network(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[0]


def load(folder: str | Path, dtype: torch.dtype = torch.float32) -> Network:
    config = transformers.AutoConfig.from_pretrained(folder)
    (name,) = config.architectures
    options = {"add_pooling_layer": False} if name == "BertModel" else {}
    cls = getattr(transformers, name)
    return Network(cls.from_pretrained(folder, dtype=dtype, **options))


def example(config: transformers.PretrainedConfig, batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    if config.model_type == "bert":
        return torch.randint(300, 30000, (batch, SEQUENCE), generator=generator)
    size = config.image_size
    return torch.randn(batch, config.num_channels, size, size, generator=generator)

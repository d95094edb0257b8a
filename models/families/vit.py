"""ViT (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021), as image classifiers."""

from __future__ import annotations

from collections.abc import Callable

from ..config import ImageConfig
from ..encoder import ImageClassifier
from .family import Family, Fields, read_activation

_INERT = "encoder_stride pooler_act pooler_output_size num_labels"


def _reader(*, distilled: bool = False, two_heads: bool = False) -> Callable[[Fields], ImageConfig]:
    def read(fields: Fields) -> ImageConfig:
        for name in _INERT.split():
            fields.get(name)
        labels = _labels(fields)
        size = fields.size("image_size", 224)
        return ImageConfig(
            architecture=fields["architectures"][0],
            hidden_size=fields.size("hidden_size"),
            intermediate_size=fields.size("intermediate_size"),
            num_layers=fields.layers("num_hidden_layers"),
            num_heads=fields.size("num_attention_heads"),
            norm_eps=fields.number("layer_norm_eps", 1e-12),
            norms="before",
            activation=read_activation(fields, default="gelu"),
            qkv_bias=fields.flag("qkv_bias", True),
            num_channels=fields.size("num_channels", 3),
            image_size=size,
            trained_image_size=size,
            patch_size=fields.size("patch_size", 16),
            num_labels=len(labels),
            labels=labels,
            distilled=distilled,
            two_heads=two_heads,
        )

    return read


def _labels(fields: Fields) -> tuple[str, ...]:
    names = fields.section("id2label") or {str(i): f"LABEL_{i}" for i in range(2)}
    try:
        return tuple(str(names[str(i)]) for i in range(len(names)))
    except KeyError as error:
        raise ValueError(f"id2label lacks the number {error}; take the original file") from error


def _names(prefix: str) -> tuple[tuple[str, str], ...]:
    return (
        ("^embeddings.", f"{prefix}.embeddings."),
        ("embeddings.projection", "embeddings.patch_embeddings.projection"),
        ("^layers.", f"{prefix}.encoder.layer."),
        ("attention.query", "attention.attention.query"),
        ("attention.key", "attention.attention.key"),
        ("attention.value", "attention.attention.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("attention_norm", "layernorm_before"),
        ("mlp_norm", "layernorm_after"),
        ("mlp.up_proj", "intermediate.dense"),
        ("mlp.down_proj", "output.dense"),
        ("final_norm", f"{prefix}.layernorm"),
    )


_TWO_HEADS = (
    *_names("deit"),
    ("^classifier", "cls_classifier"),
    ("^distillation.", "distillation_classifier."),
)
FAMILIES = {
    "ViTForImageClassification": Family(_reader(), _names("vit"), model=ImageClassifier),
    "DeiTForImageClassification": Family(
        _reader(distilled=True), _names("deit"), model=ImageClassifier
    ),
    "DeiTForImageClassificationWithTeacher": Family(
        _reader(distilled=True, two_heads=True), _TWO_HEADS, model=ImageClassifier
    ),
}

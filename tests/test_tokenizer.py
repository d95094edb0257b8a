"""A tokenizer.json of a stranger: refused in a sentence, at the latest when it is used; and what of
its settings counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer

from ingot.runtime import BadInput, BadPackage, Package
from ingot.runtime.perplexity import document

PATTERN = {"type": "Split", "pattern": {"Regex": "(((a+)+)+)+$"}, "behavior": "Isolated"}
MODEL = {"type": "BPE", "vocab": {"a": 0}, "merges": []}


class WithTokenizer(Package):
    """A package of which only the tokenizer is there."""

    manifest = {"tokenizer": True, "embedding": {"max_tokens": 64}}

    def __init__(self, tokenizer: bytes) -> None:
        self.path, self._tokenizer = "model.pt2", tokenizer

    def entry(self, name: str) -> bytes:
        return self._tokenizer


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\xff", b"[" * 100_000, b'{"model": {"type": "BPE", "vocab": 1}}'],
)
def test_unreadable(data: bytes) -> None:
    with pytest.raises(BadPackage, match="tokenizer.json of model.pt2 cannot be read"):
        WithTokenizer(data).encode("a")


def test_a_pattern_that_searches_for_ever() -> None:
    spec: dict[str, Any] = {"model": MODEL, "pre_tokenizer": {**PATTERN, "invert": False}}
    package = WithTokenizer(json.dumps(spec).encode())
    assert package.encode("a") == [0]
    with pytest.raises(BadInput, match="its tokenizer fails on this text"):
        package.encode("a" * 40 + "b")
    with pytest.raises(BadInput, match="its tokenizer fails on these texts"):
        package._encode_for_embedding(["a" * 40 + "b"])


def test_settings_of_training_neither_cut_nor_pad() -> None:
    """As `transformers`, where a call does not ask for it."""
    tokenizer = Tokenizer.from_str(json.dumps({"model": MODEL}))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=100)
    package = WithTokenizer(tokenizer.to_str().encode())
    assert package.encode("a" * 70) == [0] * 70
    assert package.encode("a") == [0]
    assert document(package, "a" * 70).ids == [0] * 70
    assert package._encode_for_embedding(["a" * 70, "a"]) == [[0] * 64, [0]]

"""A tokenizer.json of a stranger: refused in a sentence, at the latest when it is used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingot.runtime import BadInput, BadPackage, Package

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

"""Calibration texts: a file becomes samples of tokens, taken evenly over it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import json_text
from ..models import CheckpointError

_PIECE = 1 << 16  # characters of a text that are tokenised at once


@dataclass(frozen=True)
class Calibration:
    """`samples` of `length` tokens each, at most, from a file in UTF-8.

    file: a text, or if its name ends in .jsonl an object {"text": ...} a line. length None: 512, or
    as many as the model takes.
    """

    file: Path
    samples: int = 128
    length: int | None = None

    def read(self, checkpoint: Path, most: int, vocab_size: int) -> Tensor:
        """int64 [samples, length], by the checkpoint's tokenizer.json. most: a model's longest.

        The same file gives the same samples. Raises CheckpointError.
        """
        length = min(512, most) if self.length is None else self.length
        for option, value, limit in (("samples", self.samples, None), ("length", length, most)):
            if value < 1 or (limit is not None and value > limit):
                upto = "" if limit is None else f" to {limit}, which the model takes"
                raise CheckpointError(f"--calib-{option} {value} is not from 1{upto}")
        ids = array("i")
        tokenizer = _tokenizer(checkpoint)
        for text in self._texts():
            ids.extend(tokenizer.encode(text).ids)
        if not ids:
            raise CheckpointError(f"{self.file} is empty; give texts like those the model will see")
        if len(ids) < length:
            raise CheckpointError(
                f"{self.file} has {len(ids)} tokens, less than one sample of {length}; give more"
                " text, or a smaller --calib-length"
            )
        tokens = torch.from_numpy(np.array(ids)).long()
        largest = int(tokens.max())
        if largest >= vocab_size:
            raise CheckpointError(
                f"{checkpoint / 'tokenizer.json'} makes token {largest}, but the model has"
                f" {vocab_size}; take the model's own tokenizer"
            )
        count = min(self.samples, len(tokens) // length)
        starts = torch.linspace(0, len(tokens) - length, count, dtype=torch.float64).long()
        return torch.stack([tokens[start : start + length] for start in starts.tolist()])

    def _texts(self) -> Iterator[str]:
        """The file's texts, long ones in pieces that end where a line does."""
        try:
            with self.file.open(encoding="utf-8") as lines:
                if self.file.suffix == ".jsonl":
                    numbered = enumerate(lines, 1)
                    yield from (self._text_of(line, n) for n, line in numbered if line.strip())
                    return
                while piece := "".join(lines.readlines(_PIECE)):
                    if piece.strip():
                        yield piece
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.file} is not UTF-8 ({error}); convert it") from error
        except OSError as error:
            raise CheckpointError(
                f"{self.file} cannot be read ({error.strerror}); give --calib a file of texts"
            ) from error

    def _text_of(self, line: str, number: int) -> str:
        try:
            text = json_text.parse(line)["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise CheckpointError(f'{self.file}, line {number}: write {{"text": "..."}} a line')
        return text


def _tokenizer(checkpoint: Path) -> Any:
    path = checkpoint / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing; calibration texts need the model's tokenizer: copy it there"
        )
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # what the library raises for a damaged file
        raise CheckpointError(f"{path} cannot be read ({error}); save it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer

"""Prompts of token ids: as a command line gives them, or made up."""

from __future__ import annotations

from .errors import BadInput


def parse_tokens(text: str) -> list[int]:
    """Raises BadInput if it is not ids with commas between."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise BadInput(f"--tokens '{text}' is not a list of ids; write them as 1,2,3") from error


def made_up(count: int, vocab_size: int) -> list[int]:
    """So many tokens without a meaning, the same at each call. Raises BadInput for none."""
    if count < 1:
        raise BadInput("--prompt-tokens must be at least 1")
    return [(i * 7919 + 13) % vocab_size for i in range(count)]

"""What a package carries of the tokenizer: its own files, and a table from id to bytes.

The table lets a C++ program print text without a tokenizer library: a byte-level BPE's pieces are
bytes in a fixed alphabet (Radford et al. 2019), a SentencePiece-style BPE's are text with `▁` for a
space and `<0x0A>` for a byte.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import json_text
from ..models.errors import shortened
from .errors import ExportError

FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def files(checkpoint: Path) -> dict[str, bytes]:
    """The tokenizer's and generation's files that the checkpoint has, by entry name."""
    return {
        f"ingot/{n}": (checkpoint / n).read_bytes() for n in FILES if (checkpoint / n).is_file()
    }


def _alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level BPE (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    characters = {chr(b): b for b in printable}
    return characters | {chr(256 + i): b for i, b in enumerate(others)}


def _decoder_kinds(decoder: dict[str, Any] | None) -> set[str]:
    if decoder is None:
        return set()
    return {decoder["type"]} | {
        kind for d in decoder.get("decoders", []) for kind in _decoder_kinds(d)
    }


def token_bytes(tokenizer_json: bytes, vocab_size: int) -> list[bytes]:
    """The bytes each id stands for; special and unused ids stand for none. Raises ExportError."""
    try:
        return _token_bytes(json_text.parse(tokenizer_json), vocab_size)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ExportError(f"tokenizer.json cannot be read ({error!r}); save it again") from error


def _token_bytes(spec: Any, vocab_size: int) -> list[bytes]:
    vocab = spec["model"]["vocab"]
    byte_level = "ByteLevel" in _decoder_kinds(spec.get("decoder"))
    added = {t["id"]: t for t in spec.get("added_tokens", [])}
    pieces = list(vocab.items()) if isinstance(vocab, dict) else []
    if not isinstance(vocab, dict):  # Unigram: a list of [piece, score]
        pieces = [(piece, index) for index, (piece, _) in enumerate(vocab)]
    table = [b""] * vocab_size
    alphabet = _alphabet()
    for piece, index in pieces:
        if 0 <= index < vocab_size:
            table[index] = _piece_bytes(piece, alphabet if byte_level else None)
    for index, token in added.items():
        if 0 <= index < vocab_size:
            table[index] = b"" if token.get("special") else token["content"].encode()
    return table


def _piece_bytes(piece: str, alphabet: dict[str, int] | None) -> bytes:
    if alphabet is not None:
        if all(character in alphabet for character in piece):
            return bytes(alphabet[character] for character in piece)
        return piece.encode()
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("\u2581", " ").encode()


def pack_token_bytes(table: list[bytes]) -> bytes:
    """`token_bytes.bin`: uint32 count, uint32 offsets[count + 1], then the bytes; little-endian."""
    offsets = [0]
    for piece in table:
        offsets.append(offsets[-1] + len(piece))
    return struct.pack(f"<{len(offsets) + 1}I", len(table), *offsets) + b"".join(table)


def byte_table(files: dict[str, bytes], vocab_size: int) -> dict[str, bytes]:
    """The entry of the id-to-bytes table, if there is a tokenizer. Raises ExportError."""
    if "ingot/tokenizer.json" not in files:
        return {}
    table = token_bytes(files["ingot/tokenizer.json"], vocab_size)
    return {"ingot/token_bytes.bin": pack_token_bytes(table)}


_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}


def embedding_facts(checkpoint: Path, positions: int) -> dict[str, object]:
    """How hidden states become an embedding, as sentence-transformers' files say.

    Without them: the mean, not normalised. `max_tokens`: of a text, special tokens included, at
    most `positions`. Raises ExportError for a pooling that is not supported.
    """
    facts: dict[str, object] = {"pooling": "mean", "normalize": False}
    for module in read_json(checkpoint / "modules.json", []):
        stated = module if isinstance(module, dict) else {}
        kind, path = str(stated.get("type")).rpartition(".")[2], str(stated.get("path"))
        if kind == "Normalize":
            facts["normalize"] = True
        elif kind == "Pooling" and Path(path).name == path:
            facts["pooling"] = _pooling(checkpoint / path / "config.json")
        elif kind != "Transformer":
            raise ExportError(
                f"{checkpoint}/modules.json has {shortened(module)}, which is not supported"
            )
    limit = read_json(checkpoint / "sentence_bert_config.json", {}).get("max_seq_length")
    limit = limit or read_json(checkpoint / "tokenizer_config.json", {}).get("model_max_length")
    if limit is not None and not (_is_number(limit) and limit >= 1):
        raise ExportError(
            f"{checkpoint}: a text's most tokens are {shortened(limit)} by its"
            " sentence_bert_config.json or tokenizer_config.json; it must be a positive integer"
        )
    facts["max_tokens"] = min(int(limit or positions), positions)
    return facts


def _pooling(path: Path) -> str:
    config = read_json(path, {})
    if "pooling_mode" in config:  # sentence-transformers 5
        modes = [config["pooling_mode"]]
    else:
        modes = [mode for name, mode in _POOLINGS.items() if config.get(name)]
    others = [n for n, v in config.items() if n.startswith("pooling_mode_") and v is True]
    others = [name for name in others if name not in _POOLINGS]
    if len(modes) != 1 or others or modes[0] not in _POOLINGS.values():
        raise ExportError(f"{path}: pooling {modes + others} is not supported; one mode must be on")
    return str(modes[0])


def read_json(path: Path, default: Any) -> Any:
    """What a file of the checkpoint says, of the kind that `default` is, which it is if there is no
    file. Raises ExportError."""
    if not path.is_file():
        return default
    try:
        found = json_text.read(path)
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is not JSON ({error}); save it again") from error
    if type(found) is not type(default):
        kind = "an object" if isinstance(default, dict) else "a list"
        raise ExportError(f"{path} is not {kind}; take the original file")
    return found


def generation_defaults(checkpoint: Path) -> dict[str, object]:
    """Stop ids and sampling: generation_config.json, else config.json. Raises ExportError."""
    found: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        given = read_json(checkpoint / name, {})
        found |= {k: v for k, v in given.items() if v is not None}
    stops = found.get("eos_token_id", [])
    sampling: dict[str, object] = {
        "bos_token_id": found.get("bos_token_id"),
        "eos_token_ids": stops if isinstance(stops, list) else [stops],
        "do_sample": found.get("do_sample", False),
        "temperature": found.get("temperature", 1.0),
        "top_k": found.get("top_k", 0),
        "top_p": found.get("top_p", 1.0),
    }
    for name, value in sampling.items():
        allows, what = _GENERATION[name]
        if not allows(value):
            raise ExportError(
                f"{checkpoint}: {name.removesuffix('s')} of its generation_config.json or"
                f" config.json is {shortened(value)}; it must be {what}"
            )
    return sampling


def _is_id(value: Any) -> bool:
    return type(value) is int and -1 <= value < 1 << 31  # old files have -1 for none


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_GENERATION: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bos_token_id": (lambda v: v is None or _is_id(v), "a token id"),
    "eos_token_ids": (lambda v: all(map(_is_id, v)), "a token id, or a list of them"),
    "do_sample": (lambda v: isinstance(v, bool), "true or false"),
    "temperature": (lambda v: _is_number(v) and v >= 0, "a number from 0"),
    "top_k": (lambda v: _is_id(v) and v >= 0, "an integer from 0"),
    "top_p": (lambda v: _is_number(v) and 0 < v <= 1, "a number above 0, at most 1"),
}

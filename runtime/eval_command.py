"""`ingot eval`: how good a package is on a text. docs/eval.md defines what is measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from .. import json_text, process
from . import load, perplexity
from .base import BasePackage
from .errors import BadInput, reason

_LARGEST_DEFAULT_WINDOW = 2048
_BATCH = 16  # texts embedded at once
Item = TypeVar("Item")


def run(
    path: Path,
    *,
    file: Path,
    window: int | None,
    stride: int | None,
    limit: int | None,
    against: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """options: of `load`, of the package and of the one that it is compared with."""
    if limit is not None and limit < 1:
        raise BadInput(f"--limit {limit} scores nothing; give at least 1")
    texts = read_texts(file)
    package = load(path, **options)
    reference = _reference(package, load(against, **options)) if against else None
    kind = package.manifest["model"]["kind"]
    if kind == "decoder":
        window, stride = _sizes(package, reference, window, stride)
        result = _decoder(package, reference, texts, window, stride, limit)
    elif kind == "encoder" and reference:
        lines = [line for text in texts.values() for line in text.splitlines() if line.strip()]
        result = _encoder(package, reference, lines[:limit])
    elif kind == "encoder":
        raise BadInput(f"{path} is an encoder's; give the package to compare it with: --against")
    else:
        raise BadInput(f"{path} is of kind {kind}; eval takes a decoder's or a text encoder's")
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, value in result.items():
        click.echo(f"{name:24}{value:.6g}" if isinstance(value, float) else f"{name:24}{value}")


def read_texts(file: Path) -> dict[str, str]:
    """Texts by where they are: the whole file, or the `text` of each line of a .jsonl file.

    Raises BadInput for a file that cannot be read or holds no text.
    """
    try:
        content = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{file} cannot be read ({reason(error)}); give a file of UTF-8 text"
        ) from error
    if not content.strip():
        raise BadInput(f"{file} is empty; give a file of UTF-8 text")
    if file.suffix != ".jsonl":
        return {str(file): content}
    lines = {f"{file} line {i}": line for i, line in enumerate(content.split("\n"), 1)}
    return {where: _text(line, where) for where, line in lines.items() if line.strip()}


def _text(line: str, where: str) -> str:
    try:
        text = json_text.parse(line)["text"]
        text.encode()  # JSON can spell halves of a character
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f'{where} is not {{"text": "..."}}; write it so ({error!r})') from error
    return str(text)


def _reference(package: BasePackage, reference: BasePackage) -> BasePackage:
    """Raises BadInput where outputs cannot be compared."""
    ours, theirs = ({**p.manifest["model"], **_tokenizer(p)} for p in (package, reference))
    same = ["kind"]
    same += {"decoder": ["vocab_size", "tokenizer"], "encoder": ["hidden_size"]}.get(
        ours["kind"], []
    )
    for fact in same:
        if ours[fact] != theirs[fact]:
            raise BadInput(
                f"{package.path} and {reference.path} differ in {fact}; compare like with like"
            )
    return reference


def _tokenizer(package: BasePackage) -> dict[str, Any]:
    return {"tokenizer": package.manifest["entries"].get("ingot/tokenizer.json")}


def _sizes(
    package: BasePackage, reference: BasePackage | None, window: int | None, stride: int | None
) -> tuple[int, int]:
    """Window and stride, checked, or their defaults. Raises BadInput."""
    longest = min(p.manifest["model"]["max_seq_len"] for p in (package, reference) if p)
    window = min(longest, _LARGEST_DEFAULT_WINDOW) if window is None else window
    if not 2 <= window <= longest:
        raise BadInput(f"--window {window} does not work; the package takes 2 to {longest}")
    stride = window // 2 if stride is None else stride
    if not 1 <= stride <= window:
        raise BadInput(f"--stride {stride} does not work; a window of {window} takes 1 to {window}")
    return window, stride


def _decoder(
    package: BasePackage,
    reference: BasePackage | None,
    texts: dict[str, str],
    window: int,
    stride: int,
    limit: int | None,
) -> dict[str, Any]:
    documents = list(_documents(package, texts, limit))
    tokens, size = sum(len(d.ids) - 1 for d in documents), sum(d.bytes for d in documents)
    if not size:
        raise BadInput("the tokens to score stand for no text; give a longer one")
    windows = [w for d in documents for w in perplexity.windows(d.ids, window, stride)]
    begun = process.now()
    total = perplexity.negative_log_likelihood(package, _shown(windows, "score"))
    seconds = process.now() - begun
    result = {
        "perplexity_per_token": perplexity.exponential(total / tokens, "token"),
        "perplexity_per_byte": perplexity.exponential(total / size, "byte"),
        "mean_nll": total / tokens,
        "tokens": tokens,
        "bytes": size,
        "documents": len(documents),
        "windows": len(windows),
        "window": window,
        "stride": stride,
        "seconds": seconds,
    }
    if reference:
        result |= perplexity.divergence(package, reference, _shown(windows, "compare"))
    return result


def _documents(
    package: BasePackage, texts: dict[str, str], limit: int | None
) -> Iterable[perplexity.Document]:
    """Tokenised, up to `limit` tokens in all. Raises BadInput, naming the text too short."""
    for where, text in texts.items():
        document = perplexity.document(package, text, limit)
        if len(document.ids) < 2:
            raise BadInput(f"{where} has fewer than 2 tokens: none to score; lengthen or drop it")
        yield document
        if limit is not None:
            limit -= len(document.ids) - 1
            if limit == 0:
                return


def _encoder(package: BasePackage, reference: BasePackage, texts: list[str]) -> dict[str, Any]:
    """How alike two packages' embeddings of each text are: mean and least cosine."""
    begun = process.now()
    batches = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
    cosines = np.concatenate(
        [_cosines(package.embed(b), reference.embed(b)) for b in _shown(batches, "embed")]
    )
    return {
        "mean_cosine": float(cosines.mean()),
        "min_cosine": float(cosines.min()),
        "texts": len(texts),
        "seconds": process.now() - begun,
    }


def _cosines(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of each row of two [texts, hidden_size], in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    dots: np.ndarray[Any, Any] = (a * b).sum(-1)
    result: np.ndarray[Any, Any] = dots / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return result


def _shown(items: Sequence[Item], what: str) -> Iterable[Item]:
    """The items, with a progress bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, what, console=console, transient=True, disable=not console.is_terminal)

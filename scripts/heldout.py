"""The text that quality is measured on: what the demo model's training left out.

    python scripts/heldout.py -o heldout.jsonl
    ingot eval model.pt2 --text heldout.jsonl

Ten modules of this interpreter's standard library (PSF licence), one document each, in sorted
order. Other versions of Python have other text: compare numbers of one version only.
"""

from __future__ import annotations

import hashlib
import json
import sysconfig
from pathlib import Path

import click

# Whole modules the model never sees, one of each kind: data structures, text, network, numbers,
# tools.
HELD_OUT = (
    "heapq.py",
    "textwrap.py",
    "http/cookies.py",
    "fractions.py",
    "argparse.py",
    "json/decoder.py",
    "collections/abc.py",
    "unittest/suite.py",
    "asyncio/queues.py",
    "zipfile.py",
)
LEFT_OUT = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "__pycache__",
    "lib2to3",
    "turtledemo",
    "pydoc_data",
}


def corpus() -> tuple[list[str], list[str]]:
    """Texts of the training files and of the held-out files, each in sorted order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    train, held_out = [], []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if LEFT_OUT.intersection(relative.parts):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore").replace("\r\n", "\n")
        (held_out if relative.as_posix() in HELD_OUT else train).append(text)
    if len(held_out) != len(HELD_OUT):
        raise click.ClickException(
            "this interpreter's library lacks a held-out file; use Python 3.11"
        )
    return train, held_out


def write_jsonl(path: Path, texts: list[str]) -> str:
    """Writes a text a line, as `ingot eval` and --calib read them; returns what was written."""
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    path.write_text(content, encoding="utf-8")
    return content


@click.command(help=__doc__)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="A .jsonl file."
)
def main(output: Path) -> None:
    _, texts = corpus()
    content = write_jsonl(output, texts)
    digest = hashlib.sha256(content.encode()).hexdigest()
    size = sum(len(text.encode()) for text in texts)
    click.echo(f"{output}: {len(texts)} documents, {size} bytes of text, sha256 {digest[:16]}")


if __name__ == "__main__":
    main()

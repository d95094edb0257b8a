"""Subcommands that run packages: what they make, how good and how fast they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .base import COPY_WEIGHTS, JSON, PACKAGE, THREADS, checked, controlled, main


@main.command()
@PACKAGE
@click.option("--prompt", help="Text to continue.")
@click.option("--tokens", help="Token ids to continue: 1,2,3")
@click.option("--max-new-tokens", default=64, show_default=True)
@click.option("--temperature", type=float, help="0: greedy. Default: as the package says.")
@click.option("--top-k", type=int, help="Sample from the k likeliest; 0: off.")
@click.option("--top-p", type=float, help="Sample from the likeliest that hold this mass; 1: off.")
@click.option("--seed", default=0, show_default=True)
@click.option("--ignore-eos", is_flag=True, help="Do not stop at stop ids.")
@THREADS
@COPY_WEIGHTS
@checked
@click.option("--trace", type=click.Path(path_type=Path), help="Write a Chrome trace here.")
@JSON
@controlled
def run(package: Path, **options: Any) -> None:
    """Generate from a package.

    \b
    ingot run model.pt2 --prompt "def fibonacci(n):" --max-new-tokens 100
    ingot run model.pt2 --tokens 1,2,3 --temperature 0.8 --top-p 0.9 --seed 7 --json
    ingot run model.pt2 --prompt "a" --control leak-check --control stats=stats.txt
    """
    from ..runtime import generate_command

    generate_command.run(package, **options)


@main.command()
@PACKAGE
@click.option("--text", "texts", multiple=True, help="A text; give it as often as you like.")
@click.option("--file", type=click.Path(path_type=Path), help="A file with one text a line.")
@THREADS
@checked
@JSON
@controlled
def embed(package: Path, **options: Any) -> None:
    """Embed texts with an encoder's package.

    \b
    ingot embed minilm.pt2 --text "a cat" --text "a dog" --json
    """
    from ..runtime import embed_command

    embed_command.run(package, **options)


@main.command()
@PACKAGE
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--top", default=5, show_default=True, help="Labels to print, likeliest first.")
@THREADS
@checked
@JSON
@controlled
def classify(package: Path, **options: Any) -> None:
    """Say what an image shows, with an image classifier's package.

    \b
    ingot classify vit.pt2 cat.jpg --top 3 --json
    """
    from ..runtime import classify_command

    classify_command.run(package, **options)


@main.command("eval")
@PACKAGE
@click.option(
    "--text",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    help='UTF-8 text; or FILE.jsonl with {"text": ...} a line, each scored for itself.',
)
@click.option(
    "--window",
    type=int,
    help="Tokens that the model sees at once. Default: 2048, or as many as the package takes.",
)
@click.option(
    "--stride",
    type=int,
    help="Tokens from one window to the next, which scores only what is new in it: every token "
    "has window - stride + 1 tokens before it, or all there are. Smaller is slower and closer to "
    "the model's best; as large as the window is fastest. Default: half the window.",
)
@click.option("--limit", type=int, help="Score the first N tokens only; of an encoder, N texts.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="A reference package to compare with; an encoder needs one.",
)
@THREADS
@checked
@JSON
@controlled
def evaluate(package: Path, **options: Any) -> None:
    """Measure a package's quality on a text.

    A decoder's perplexity, in sliding windows; with --against also how far its next-token
    distributions are from the reference's. An encoder's embedding of each line, by its cosine to
    the reference's. Definitions: docs/eval.md.

    \b
    ingot eval model.pt2 --text heldout.txt --json
    ingot eval model.pt2 --text heldout.jsonl --window 1024 --stride 512 --limit 20000
    ingot eval bfloat16.pt2 --text heldout.txt --against float32.pt2
    """
    from ..runtime import eval_command

    eval_command.run(package, **options)


@main.command()
@PACKAGE
@click.option("--prompt-tokens", default=128, show_default=True)
@click.option("--new-tokens", default=64, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@THREADS
@COPY_WEIGHTS
@checked
@JSON
@controlled
def bench(package: Path, **options: Any) -> None:
    """Measure a decoder's package's speed against what this machine's memory gives.

    \b
    ingot bench model.pt2 --prompt-tokens 512 --new-tokens 64 --threads 4
    """
    from ..runtime import bench_command

    bench_command.run(package, **options)

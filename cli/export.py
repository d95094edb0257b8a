"""`ingot export`."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import click

from .. import process
from .base import JSON, Progress, main, need


@main.command()
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option(
    "--kv-dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16", "int8"]),
    default="auto",
    help="Of the KV cache; auto: as --dtype.",
)
@click.option("--max-seq-len", type=int, help="Longest sequence; default: as config.json says.")
@click.option("--image-size", type=int, help="Pixels a side; default: as config.json says.")
@click.option(
    "--quant",
    metavar="RECIPE",
    help="int8, int8-a8, int4, int4-a8, awq, awq-a8, or a .json file (docs/quantisation.md).",
)
@click.option("--group-size", type=int, help="32, 64 or 128 columns share a scale; with --quant.")
@click.option(
    "--activation-bits",
    type=int,
    help="8, 16 or 32, of what quantised weights multiply; default: as the recipe or checkpoint.",
)
@click.option(
    "--calib",
    type=click.Path(path_type=Path),
    help="Texts like those the model will see (.jsonl: a 'text' a line); for awq and int8-a8.",
)
@click.option("--calib-samples", default=128, show_default=True)
@click.option("--calib-length", type=int, help="Tokens of a sample; default: 512 at most.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Texts to measure the model on, before and after it is quantised.",
)
@click.option(
    "--format",
    type=click.Choice(["package", "onnx"]),
    default="package",
    help="onnx: a model for ONNX Runtime (docs/onnx.md).",
)
@click.option(
    "--isa",
    metavar="LEVELS",
    help="x86-64-v2, x86-64-v3, x86-64-v4 or several, with commas between: one package with code "
    "for each. Default: this machine's level.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    help="cuda: for NVIDIA GPUs; the export itself needs none.",
)
@click.option(
    "--cuda-arch",
    metavar="ARCHITECTURES",
    help="80, 86, 89, 90 or several, with commas between: code for each; with --device cuda. "
    "Default: that of this machine's GPU.",
)
@click.option(
    "--op-library", type=click.Path(path_type=Path), help="Of your own ops' C shims; for a module."
)
@JSON
def export(source: str, output: Path, as_json: bool, **options: Any) -> None:
    """Cast a checkpoint folder (Hugging Face layout), or any module, into one package.

    A module is given as FILE.py:FUNCTION; the function returns the module, a tuple of example
    inputs and which of their sizes vary (torch.export's dynamic_shapes).

    \b
    ingot export path/to/checkpoint -o model.pt2 --dtype bfloat16
    ingot export path/to/checkpoint -o model.pt2 --dtype bfloat16 --quant int4-a8
    ingot export path/to/checkpoint -o model.pt2 --dtype bfloat16 --quant awq --calib texts.jsonl
    ingot export path/to/checkpoint -o model.pt2 --isa x86-64-v3,x86-64-v4 --max-seq-len 4096
    ingot export path/to/checkpoint -o model.pt2 --dtype bfloat16 --device cuda --cuda-arch 80,90
    ingot export path/to/checkpoint -o model.onnx --format onnx
    ingot export model.py:make -o model.pt2 --op-library libmine.so
    """
    need("torch", "safetensors")
    from ..export.source import export_source

    try:
        with process.stoppable() as check, Progress() as show:

            def progress(phase: str) -> None:
                check()
                show(phase)

            since = process.start_time()
            record = export_source(source, output, progress=progress, since=since, **options)
    finally:
        gc.freeze()  # the process ends; to look through all that tracing made takes two seconds
    if as_json:
        click.echo(json.dumps(record))
    else:
        click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB", err=True)
        _print_phases(record)
        if options["report"] is not None:
            _print_quality(record["facts"])


def _print_phases(record: dict[str, Any]) -> None:
    from ..profiling.record import Record
    from ..profiling.reports.report import report as report_of
    from ..profiling.reports.table import phases
    from ..profiling.terminal import console

    console(stderr=True).print(phases(report_of(Record.from_dict(record))))


def _print_quality(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from ..profiling.terminal import console

    columns = ("module", "bits", "method", "weight_error", "output_error", "rounded_error")
    table = Table(title="quantisation: relative errors")
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for fact in facts["quantisation"]:
        values = (fact[name] for name in columns)
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v or "") for v in values))
    table.caption = ", ".join(f"{name} {value:.5g}" for name, value in facts["quality"].items())
    console(stderr=True).print(table)

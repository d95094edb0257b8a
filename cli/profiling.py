"""Subcommands that say where time goes: before, during and beside a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .base import JSON, PACKAGE, THREADS, Progress, checked, fail, main, need


@main.command()
@click.argument("call", type=click.Path(path_type=Path))
@click.option("--repeats", default=50, show_default=True, help="Calls to time.")
@click.option("--threads", default=0, help="0: one a core.")
@JSON
def replay(call: Path, repeats: int, threads: int, as_json: bool) -> None:
    """Run one captured op call alone: compare its outputs with those captured, and time it.

    \b
    ingot run model.pt2 --tokens 1,2,3 --control capture=linear_w4@5 --control capture-to=call.npz
    ingot replay call.npz --repeats 200 --json
    """
    from ..runtime import replay_command

    replay_command.run(call, repeats, threads, as_json)


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--hardware",
    default="cpu",
    show_default=True,
    help="h100, a100, or a .json file (docs/analyze.md); cpu: this machine, measured now.",
)
@click.option("--batch", default=1, show_default=True, help="Sequences or images at once.")
@click.option(
    "--prompt", type=int, help="Tokens of each. Default: 512, or as many as there can be."
)
@click.option("--context", type=int, help="Tokens that a decode step sees. Default: as --prompt.")
@click.option(
    "--step-tokens",
    type=int,
    help="Tokens of prompts that one step reads. Default: as the runtime, 256, on a GPU 2048.",
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Of a checkpoint.")
@click.option(
    "--kv-dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16", "int8"]),
    help="Of the KV cache of a checkpoint.",
)
@click.option("--quant", "recipe", metavar="RECIPE", help="Of a checkpoint, as for export.")
@click.option("--group-size", type=int, help="32, 64 or 128 columns share a scale; with --quant.")
@THREADS
@JSON
def analyze(source: Path, **options: Any) -> None:
    """Predict what a checkpoint or a package costs: memory, arithmetic, traffic and time.

    Nothing is compiled or run, and of a checkpoint only config.json is read. Times are the
    roofline's (docs/analyze.md).

    \b
    ingot analyze path/to/checkpoint --dtype bfloat16 --hardware h100 --batch 8 --context 4096
    ingot analyze path/to/checkpoint --dtype bfloat16 --quant int4-a8
    ingot analyze model.pt2 --prompt 512 --json
    """
    from ..runtime import analyze_command

    given = {name: options.pop(name) for name in ("dtype", "kv_dtype", "recipe", "group_size")}
    if source.is_dir():
        need("torch", "safetensors")
        from ..export.subject import of_checkpoint

        subject = of_checkpoint(source, **{n: v for n, v in given.items() if v is not None})
    elif any(given.values()):
        fail(f"{source} is no checkpoint folder; a package's dtypes and weights are as exported")
    else:
        subject = analyze_command.of_package(source)
    analyze_command.run(subject, **options)


@main.command()
@PACKAGE
@click.option("--prompt", help="Text to continue.")
@click.option("--tokens", help="Token ids to continue, or for an encoder: 1,2,3")
@click.option(
    "--prompt-tokens",
    default=128,
    show_default=True,
    help="Random ones, if none are given.",
)
@click.option("--new-tokens", default=64, show_default=True)
@click.option("--text", "texts", multiple=True, help="For an encoder; as often as you like.")
@click.option("--size", "sizes", multiple=True, help="Of a module's inputs, which vary: T=128")
@click.option("--repeats", default=5, show_default=True, help="Runs with tracing, and without.")
@THREADS
@checked
@click.option(
    "--trace",
    "recorded",
    type=click.Path(path_type=Path),
    help="Explain this trace, which `ingot run --trace` wrote, instead of running.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write a trace here, for Perfetto."
)
@JSON
def profile(package: Path, **options: Any) -> None:
    """Say where a run's time goes, beside what this machine reaches.

    By module, op, kernel and layer; and how much of the time has a name.

    \b
    ingot profile model.pt2 --prompt "def fibonacci(n):" -o trace.json
    ingot profile model.pt2 --prompt-tokens 512 --new-tokens 64 --threads 4 --json
    ingot profile minilm.pt2 --text "a cat" --text "a dog"
    ingot profile module.pt2 --size T=128
    ingot profile model.pt2 --trace trace.json
    """
    from ..runtime import profile_command

    profile_command.run(package, **options)


@main.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--prompt", help="Text to continue, by the first source's tokenizer.")
@click.option("--tokens", help="Token ids to continue: 1,2,3")
@click.option("--prompt-tokens", type=int, help="A prompt of so many made-up tokens; default: 32.")
@click.option("--new-tokens", type=int, help="Generated after the prompt; default: 16.")
@click.option("--repeats", default=5, show_default=True, help="Untraced runs of each engine.")
@THREADS
@checked
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write a page (.html) with charts here."
)
@click.option(
    "--save-traces",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Keep each engine's trace here, to compare again.",
)
@JSON
def compare(sources: tuple[str, ...], **options: Any) -> None:
    """Say where one way of running a model takes other time than another, module by module.

    A source is a package, a trace file, or an engine with what it runs: eager:CHECKPOINT (our
    modules in PyTorch), hf:CHECKPOINT (transformers), compile:CHECKPOINT (torch.compile) or
    onnx:FILE. What is not a trace yet runs in a process of its own, all on the same tokens. The
    first source is what the others are held against. Definitions: docs/compare.md.

    \b
    ingot compare eager:path/to/checkpoint model.pt2
    ingot compare hf:path/to/checkpoint compile:path/to/checkpoint model.pt2 -o compare.html
    ingot compare before.json after.json --json
    """
    from ..runtime import compare_command

    with Progress() as progress:
        compare_command.run(sources, progress=progress, **options)


@main.command()
@click.argument("source", metavar="PACKAGE", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write a page (.html) with charts here."
)
@JSON
def report(source: Path, **options: Any) -> None:
    """Say where an export's time went, and what became of the graph.

    Of a package, or of a record that `ingot export --json` printed. Definitions: docs/report.md.

    \b
    ingot report model.pt2
    ingot report model.pt2 -o report.html
    ingot report record.json --json
    """
    from ..runtime import report_command

    report_command.run(source, **options)

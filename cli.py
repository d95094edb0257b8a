"""The `ingot` command. Bodies live where the work is done; here are options, errors and output.

Machine-readable output goes to stdout behind --json, all else that is not the result to stderr. Bad
input is one sentence and exit code 2. Nothing here imports torch but `export`.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from . import __version__, process

PACKAGE = click.argument("package", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
THREADS = click.option(
    "--threads", default=0, help="Threads of a step; 0: the cores this process may use."
)

COPY_WEIGHTS = click.option(
    "--copy-weights",
    is_flag=True,
    help="To memory of this process alone, in huge pages: slower to open, may run faster.",
)


def checked(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --verify and --key to a command that loads packages."""
    command = click.option(
        "--key",
        type=click.Path(path_type=Path),
        help="Load it only if this public key (PEM) has signed it; as ingot verify --key.",
    )(command)
    return click.option(
        "--verify", is_flag=True, help="Check every entry's hash first, not the code's alone."
    )(command)


def controlled(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --control to a command that runs packages."""

    @click.option(
        "--control",
        "settings",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Watch or change what generated code calls: see ingot doctor --controls.",
    )
    @functools.wraps(command)
    def run(*args: Any, settings: tuple[str, ...], **options: Any) -> None:
        from .runtime import controls

        with controls.on(settings):
            command(*args, **options)

    return run


class Group(click.Group):
    """Turns what the user can mend into one sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else ctx.command_path
            click.echo(f"ingot: {error.format_message()} See {where} --help", err=True)
            ctx.exit(2)
        except Exception as error:
            if not _is_for_the_user(error):
                raise
            click.echo(f"ingot: {_printable(error)}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, process.Stopped) else signal.SIGINT
            click.echo("ingot: stopped", err=True)
            ctx.exit(128 + number)  # as shells count


def _printable(error: Exception) -> str:
    """The sentence, in one line. It may hold names out of a stranger's file."""
    from .profiling.terminal import printable

    return printable(" ".join(str(error).split()))


def _is_for_the_user(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"IngotError", "ExportError", "CheckpointError", "ProfileError"})


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ingot")
def main() -> None:
    """Cast PyTorch transformers into packages that run without torch.

    \b
    ingot export path/to/checkpoint -o model.pt2
    ingot run model.pt2 --prompt "def fibonacci(n):"
    """


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
    ingot export path/to/checkpoint -o model.onnx --format onnx
    ingot export model.py:make -o model.pt2 --op-library libmine.so
    """
    _need("torch", "safetensors")
    from .export.source import export_source

    try:
        with process.stoppable() as check, _progress() as show:

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


class _progress:
    """A line on stderr that says the phase; plain lines where stderr is no terminal."""

    def __enter__(self) -> Callable[[str], None]:
        from .profiling.terminal import console

        terminal = console(stderr=True)
        if not terminal.is_terminal:
            return lambda phase: click.echo(f"{phase} ...", err=True)
        self._status = terminal.status("starts")
        self._status.start()
        return self._status.update

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_status"):
            self._status.stop()


def _print_phases(record: dict[str, Any]) -> None:
    from .profiling.record import Record
    from .profiling.reports.report import report as report_of
    from .profiling.reports.table import phases
    from .profiling.terminal import console

    console(stderr=True).print(phases(report_of(Record.from_dict(record))))


def _print_quality(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from .profiling.terminal import console

    columns = ("module", "bits", "method", "weight_error", "output_error", "rounded_error")
    table = Table(title="quantisation: relative errors")
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for fact in facts["quantisation"]:
        values = (fact[name] for name in columns)
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v or "") for v in values))
    table.caption = ", ".join(f"{name} {value:.5g}" for name, value in facts["quality"].items())
    console(stderr=True).print(table)


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
    from .runtime import generate_command

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
    from .runtime import embed_command

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
    from .runtime import classify_command

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
    from .runtime import eval_command

    eval_command.run(package, **options)


@main.command()
@PACKAGE
@click.option("--prompt-tokens", default=128, show_default=True)
@click.option("--new-tokens", default=64, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@THREADS
@COPY_WEIGHTS
@JSON
@controlled
def bench(package: Path, **options: Any) -> None:
    """Measure a package's speed against what this machine's memory gives.

    \b
    ingot bench model.pt2 --prompt-tokens 512 --new-tokens 64 --threads 4
    """
    from .runtime import bench_command

    bench_command.run(package, **options)


@main.command()
@PACKAGE
@JSON
def inspect(package: Path, as_json: bool) -> None:
    """Show what is inside a package, and what its compilation cost.

    \b
    ingot inspect model.pt2
    """
    from .runtime import inspect_command

    inspect_command.run(package, as_json)


@main.command()
@click.option(
    "--controls", is_flag=True, help="List the controls of --control (docs/controls.md) instead."
)
@JSON
def doctor(controls: bool, as_json: bool) -> None:
    """Say what this machine can do: CPU level, libraries, compiler, torch."""
    from .export import torch_versions
    from .runtime import doctor_command

    if controls:
        doctor_command.list_controls(as_json)
    else:
        doctor_command.run(as_json, torch_versions.refusal())


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
    from .runtime import replay_command

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
    "--step-tokens", default=256, show_default=True, help="Tokens of prompts that one step reads."
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
    from .runtime import analyze_command

    given = {name: options.pop(name) for name in ("dtype", "kv_dtype", "recipe", "group_size")}
    if source.is_dir():
        _need("torch", "safetensors")
        from .export.subject import of_checkpoint

        subject = of_checkpoint(source, **{n: v for n, v in given.items() if v is not None})
    elif any(given.values()):
        _fail(f"{source} is no checkpoint folder; a package's dtypes and weights are as exported")
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
    from .runtime import profile_command

    profile_command.run(package, **options)


@main.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("--prompt", help="Text to continue, by the first source's tokenizer.")
@click.option("--tokens", help="Token ids to continue: 1,2,3")
@click.option("--prompt-tokens", type=int, help="A prompt of so many made-up tokens; default: 32.")
@click.option("--new-tokens", type=int, help="Generated after the prompt; default: 16.")
@click.option("--repeats", default=5, show_default=True, help="Untraced runs of each engine.")
@THREADS
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
    from .runtime import compare_command

    with _progress() as progress:
        compare_command.run(sources, progress=progress, **options)


def _need(*modules: str) -> None:
    for needed in modules:
        if importlib.util.find_spec(needed) is None:
            _fail(f"{needed} is not installed; this needs it: pip install 'ingot[export]'")


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
    from .runtime import report_command

    report_command.run(source, **options)


@main.command()
@PACKAGE
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    help="An Ed25519 private key: PEM, PKCS#8.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: the package itself."
)
@click.option("--comment", default="", help="A line that is signed too and that verify shows.")
@JSON
def sign(package: Path, **options: Any) -> None:
    """Verify a package and sign it (docs/security.md).

    The pass phrase of an encrypted key comes from INGOT_KEY_PASSPHRASE, or is asked for.

    \b
    openssl genpkey -algorithm ed25519 -out private.pem
    openssl pkey -in private.pem -pubout -out public.pem
    ingot sign model.pt2 --key private.pem -o signed.pt2
    """
    from .runtime import sign_command

    sign_command.run(package, **options)


@main.command()
@PACKAGE
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="An Ed25519 public key in PEM: the package must have a signature by it.",
)
@JSON
def verify(package: Path, **options: Any) -> None:
    """Check all of a package: the file's structure, every entry's hash, and who signed it.

    Nothing in it is run. Exit code 0, or 2 with a sentence that says what is wrong
    (docs/security.md).

    \b
    ingot verify model.pt2
    ingot verify model.pt2 --key public.pem --json
    """
    from .runtime import verify_command

    verify_command.run(package, **options)


def _fail(sentence: str) -> NoReturn:
    click.echo(f"ingot: {sentence}", err=True)
    sys.exit(2)

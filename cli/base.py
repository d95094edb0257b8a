"""The command itself, and what its subcommands share: options, errors, progress."""

from __future__ import annotations

import errno
import functools
import importlib.util
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import click

from .. import __version__, process

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
        help="Load packages only if this public key (PEM) has signed them; as ingot verify --key.",
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
        from ..runtime import controls

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
            if _is_full_output(error):
                click.echo(f"ingot: cannot write the output: {error.strerror}", err=True)
                ctx.exit(2)
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
    from ..profiling.terminal import printable

    return printable(" ".join(str(error).split()))


def _is_full_output(error: Exception) -> TypeGuard[OSError]:
    """Whether stdout's disk is full: other files that are written have their own sentences."""
    if not isinstance(error, OSError) or error.filename is not None:
        return False
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


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


class Progress:
    """A line on stderr that says the phase; plain lines where stderr is no terminal."""

    def __enter__(self) -> Callable[[str], None]:
        from ..profiling.terminal import console

        terminal = console(stderr=True)
        if not terminal.is_terminal:
            return lambda phase: click.echo(f"{phase} ...", err=True)
        self._status = terminal.status("starts")
        self._status.start()
        return self._status.update

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_status"):
            self._status.stop()


def need(*modules: str) -> None:
    for needed in modules:
        if importlib.util.find_spec(needed) is None:
            fail(f"{needed} is not installed; this needs it: pip install 'ingot[export]'")


def fail(sentence: str) -> NoReturn:
    click.echo(f"ingot: {sentence}", err=True)
    sys.exit(2)

"""Subcommands that look at packages and machines, and run nothing of a package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .base import JSON, PACKAGE, main


@main.command()
@PACKAGE
@JSON
def inspect(package: Path, as_json: bool) -> None:
    """Show what is inside a package, and what its compilation cost.

    \b
    ingot inspect model.pt2
    """
    from ..runtime import inspect_command

    inspect_command.run(package, as_json)


@main.command()
@click.option(
    "--controls", is_flag=True, help="List the controls of --control (docs/controls.md) instead."
)
@JSON
def doctor(controls: bool, as_json: bool) -> None:
    """Say what this machine can do: CPU level, libraries, compiler, torch."""
    from ..export import torch_versions
    from ..runtime import doctor_command

    if controls:
        doctor_command.list_controls(as_json)
    else:
        doctor_command.run(as_json, torch_versions.refusal())


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
    from ..runtime import sign_command

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
    from ..runtime import verify_command

    verify_command.run(package, **options)

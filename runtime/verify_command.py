"""`ingot verify`: whether a package is whole and unchanged, and who signed it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from . import signing
from .verification import Verified, open_package, verify


def run(path: Path, key: Path | None, as_json: bool) -> None:
    public = None if key is None else signing.read_public_key(key)
    with open_package(path) as file:
        found = verify(file, path)
    signer = None
    if public is not None:
        signer = signing.check(found.signatures, public, found.manifest_sha256, str(path))
    if as_json:
        click.echo(json.dumps(_facts(found, signer)))
        return
    size = sum(fact["bytes"] for fact in found.manifest["entries"].values())
    count = len(found.manifest["entries"])
    click.echo(f"{path}: whole, all {count} entries ({size / 1e6:.1f} MB) as the manifest states")
    click.echo(f"manifest SHA-256 {found.manifest_sha256}")
    for signature in found.signatures:
        checked = "signed by" if signature is signer else "not checked: says it is signed by"
        comment = f" ({signature.comment})" if signature.comment else ""
        click.echo(f"{checked} the key {signature.key_id}{comment}")
    if not found.signatures:
        click.echo("unsigned: whoever changed it could have changed the manifest too")


def _facts(found: Verified, signer: signing.Signature | None) -> dict[str, Any]:
    return {
        "manifest_sha256": found.manifest_sha256,
        "entries": found.manifest["entries"],
        "signatures": [
            {**asdict(signature), "checked": signature is signer} for signature in found.signatures
        ],
    }

"""`ingot verify`: whether a package is whole and unchanged, and who signed it.

Nothing of the package is run. Needs `cryptography` only with a key.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from . import signing
from .archive import Archive
from .errors import BadInput, BadPackage

MANIFEST = "ingot/manifest.json"
_MOST_MANIFEST = 1 << 28
_FIXED = {"archive_format": b"pt2", "byteorder": b"little"}  # what the manifest does not list


@dataclass(frozen=True)
class Verified:
    """A package that is what its manifest says. manifest_sha256 names all of its content."""

    archive: Archive
    manifest: dict[str, Any]
    manifest_sha256: str
    signatures: list[signing.Signature]


def open_package(path: Path) -> BinaryIO:
    """Raises BadInput."""
    try:
        if not path.is_file():
            raise BadInput(f"{path} is not a file; give the path of a package (.pt2)")
        return path.open("rb", buffering=0)
    except OSError as error:
        raise BadInput(f"cannot open {path}: {error.strerror}") from error


def verify(file: BinaryIO, path: Path) -> Verified:
    """Reads all of the file. Raises BadPackage unless the archive has one reading, its entries are
    those of the manifest, and each has the size and SHA-256 stated there. Signatures are read, not
    checked."""
    archive = Archive(file, str(path))
    text = archive.read(MANIFEST, _MOST_MANIFEST)
    manifest = _parse(text, path)
    stated: dict[str, Any] = manifest["entries"]
    unlisted = set(archive.entries) - set(stated) - {MANIFEST, signing.ENTRY, *_FIXED}
    if missing := (set(stated) | set(_FIXED)) - set(archive.entries):
        raise BadPackage(f"{path} has no entry {min(missing)}; copy or export it again")
    if unlisted:
        raise BadPackage(f"{path} has an entry that its manifest does not list: {min(unlisted)}")
    for name, content in _FIXED.items():
        if archive.read(name, 64) != content:
            raise BadPackage(f"{path} is damaged: {name} is not {content.decode()}")
    for name, fact in stated.items():
        if (archive.entries[name].size, archive.sha256(name)) != (fact["bytes"], fact["sha256"]):
            raise BadPackage(
                f"{path} is damaged or was changed: {name} does not have the hash that its manifest"
                " states; copy or export it again"
            )
    for name in (MANIFEST, *_FIXED):
        archive.sha256(name)  # the CRC-32 that zip tools look at
    signatures: list[signing.Signature] = []
    if signing.ENTRY in archive.entries:
        archive.sha256(signing.ENTRY)
        signatures = signing.parse(archive.read(signing.ENTRY, signing.MOST_BYTES), str(path))
    return Verified(archive, manifest, hashlib.sha256(text).hexdigest(), signatures)


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            raise ValueError("a name is there twice")
        return values

    try:
        manifest: dict[str, Any] = json.loads(text.decode(), object_pairs_hook=once)
        for fact in manifest["entries"].values():
            fact["bytes"], fact["sha256"]
        special = {MANIFEST, signing.ENTRY, *_FIXED} & set(manifest["entries"])
        if special:
            raise ValueError(f"it lists {min(special)}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadPackage(
            f"the manifest of {path} cannot be read ({error}); export the package again"
        ) from error
    return manifest


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

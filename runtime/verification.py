"""Whether a package is whole and unchanged, and who signed it (docs/security.md).

Nothing of the package is run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .. import json_text
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
    for name in set(archive.entries) - set(stated):
        archive.sha256(name)  # for the CRC-32 that zip tools look at
    digest = hashlib.sha256(text).hexdigest()
    return Verified(archive, manifest, digest, _signatures(archive))


def signed_manifest(path: Path, key: Path) -> str:
    """SHA-256 of the manifest that this key signed, by which the runtime is to open the package.

    Only the manifest is read. Raises BadInput or BadPackage.
    """
    public = signing.read_public_key(key)
    with open_package(path) as file:
        archive = Archive(file, str(path))
        digest = hashlib.sha256(archive.read(MANIFEST, _MOST_MANIFEST)).hexdigest()
        signing.check(_signatures(archive), public, digest, str(path))
    return digest


def _signatures(archive: Archive) -> list[signing.Signature]:
    if signing.ENTRY not in archive.entries:
        return []
    return signing.parse(archive.read(signing.ENTRY, signing.MOST_BYTES), archive.path)


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            raise ValueError("a name is there twice")
        return values

    try:
        manifest: dict[str, Any] = json_text.parse(text.decode(), object_pairs_hook=once)
        for fact in manifest["entries"].values():
            fact["bytes"], fact["sha256"]
        special = {MANIFEST, signing.ENTRY, *_FIXED} & set(manifest["entries"])
        if special:
            raise ValueError(f"it lists {min(special)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadPackage(
            f"the manifest of {path} cannot be read ({error}); export the package again"
        ) from error
    return manifest

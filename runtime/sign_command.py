"""`ingot sign`: put a signature into a package, which appears only when it is whole."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

import click

from . import signing
from .archive import tail_with
from .errors import BadInput
from .verification import open_package, verify


def sign(path: Path, output: Path, key: Path, comment: str = "") -> signing.Signature:
    """Verify the package and write it with one more signature; an earlier one by the same key is
    replaced, others stay. `output` may be `path`.

    Other bytes stay as they are. Where the file system can, the copy shares its blocks with the
    original. Raises BadInput or BadPackage; `output` is then as it was before.
    """
    private = signing.read_private_key(key)
    with open_package(path) as source:
        found = verify(source, path)
        made = signing.sign(private, found.manifest_sha256, comment)
        others = [s for s in found.signatures if s.key_id != made.key_id]
        start, tail = tail_with(found.archive, signing.ENTRY, signing.pack([*others, made]))
        _write(source, start, tail, output)
    return made


def _write(source: IO[bytes], start: int, tail: bytes, output: Path) -> None:
    """The first `start` bytes of `source`, then `tail`."""
    target = output.resolve()  # of a link, what it points to is replaced, not the link
    if target.exists() and not target.is_file():
        raise BadInput(f"{output} is no file to write a package to; give the path of one")
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", suffix=".partial", delete=False
        ) as partial:
            try:
                _copy(source, partial, start)
                partial.write(tail)
                partial.flush()
                os.fchmod(partial.fileno(), os.fstat(source.fileno()).st_mode & 0o777)
                os.fsync(partial.fileno())  # what is replaced may be the only copy
                os.replace(partial.name, target)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(partial.name)
    except OSError as error:
        raise BadInput(
            f"cannot write {output}: {error.strerror}; nothing was left there"
        ) from error


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """By the kernel: copy_file_range(2), or where file systems differ in kind sendfile(2)."""
    done = 0
    while done < size:
        try:
            copied = os.copy_file_range(source.fileno(), target.fileno(), size - done, done, done)
        except OSError:
            target.seek(done)
            copied = os.sendfile(target.fileno(), source.fileno(), done, size - done)
        if not copied:
            raise OSError(0, "the package became shorter")
        done += copied
    target.seek(size)


def run(path: Path, key: Path, output: Path | None, comment: str, as_json: bool) -> None:
    made = sign(path, output or path, key, comment)
    if as_json:
        click.echo(json.dumps(asdict(made)))
    else:
        click.echo(f"{output or path}: signed by the key {made.key_id}", err=True)

"""Small packages, keys, and what checks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from ingot.export.archive import ArchiveWriter
from ingot.runtime import signing
from ingot.runtime.verification import Verified, open_package, verify

ENTRIES = {
    "ingot/variants/x86-64-v2/model.so": b"\x7fELF code",
    "ingot/weights.bin": bytes(range(256)),
    "ingot/libraries/libmine.so": b"\x7fELF op",
    "ingot/tokenizer.json": b"{}",
    "ingot/report.json": b"{}",
}


def write_package(path: Path, entries: dict[str, bytes] = ENTRIES, stated: Any = None) -> Path:
    """stated: the manifest's `entries`, where they are not to be the true ones."""
    with ArchiveWriter(path) as archive:
        for name, data in entries.items():
            archive.add(name, data)
        manifest = {"entries": archive.entries if stated is None else stated}
        archive.add_last("ingot/manifest.json", json.dumps(manifest).encode())
    return path


class Keys:
    """Files of a key pair, as `cryptography` writes them."""

    def __init__(self, folder: Path, name: str, private: Any = None, phrase: bytes = b"") -> None:
        private = private or ed25519.Ed25519PrivateKey.generate()
        hidden: Any = serialization.NoEncryption()
        if phrase:
            hidden = serialization.BestAvailableEncryption(phrase)
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        self.private, self.public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
        self.private.write_bytes(private.private_bytes(pem, form, hidden))
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        self.public.write_bytes(private.public_key().public_bytes(pem, public))


def verified(path: Path) -> Verified:
    with open_package(path) as file:
        return verify(file, path)


def check(path: Path, public: Path) -> signing.Signature:
    found = verified(path)
    key = signing.read_public_key(public)
    return signing.check(found.signatures, key, found.manifest_sha256, str(path))


def ingot(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingot", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60
    )


def with_entry(name: str, data: bytes = b"x", **facts: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        info = zipfile.ZipInfo(name)
        info.create_version = info.extract_version = 45  # as export writes it, but for `facts`
        info.external_attr = 0o644 << 16
        for fact, value in facts.items():
            setattr(info, fact, value)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(info, data)

    return change

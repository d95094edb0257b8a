"""Signatures of packages: Ed25519 (RFC 8032), by the `cryptography` package.

What is signed is a short text that holds the SHA-256 of the manifest's bytes. The manifest holds
the SHA-256 of every other entry, so a signature covers the code, the weights and the rest, and it
fits no other package. The signatures lie in an entry of their own, which the manifest does not
list: to sign changes nothing that was there (docs/security.md).
"""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import json_text
from .errors import BadInput, BadPackage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

ENTRY = "ingot/signature.json"
MOST_BYTES = 1 << 20  # of the entry
PASSPHRASE = "INGOT_KEY_PASSPHRASE"
_ALGORITHM = "ed25519"
_MAKE = (
    "make one with: openssl genpkey -algorithm ed25519 -out private.pem; openssl pkey -in"
    " private.pem -pubout -out public.pem"
)


@dataclass(frozen=True)
class Signature:
    """key_id: hexadecimal SHA-256 of the public key's SubjectPublicKeyInfo in DER (RFC 8410).
    comment: the signer's, a line that is signed too. signature: the 64 bytes in base64."""

    algorithm: str
    key_id: str
    comment: str
    signature: str


def statement(manifest_sha256: str, comment: str) -> bytes:
    """The text that is signed. Its first line tells it from whatever else a key may sign."""
    return f"ingot package signature 1\nmanifest {manifest_sha256}\ncomment {comment}\n".encode()


def key_id(key: Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


def sign(key: Ed25519PrivateKey, manifest_sha256: str, comment: str) -> Signature:
    """Raises BadInput for a comment that is no line of printable text."""
    if not comment.isprintable() or len(comment) > 200:
        raise BadInput("--comment must be a line of printable text, of 200 characters at most")
    made = key.sign(statement(manifest_sha256, comment))
    return Signature(_ALGORITHM, key_id(key.public_key()), comment, base64.b64encode(made).decode())


def check(
    signatures: Iterable[Signature], key: Ed25519PublicKey, manifest_sha256: str, path: str
) -> Signature:
    """The signature by this key. Raises BadPackage if there is none, or it is of something else."""
    from cryptography.exceptions import InvalidSignature

    wanted = key_id(key)
    (*found,) = (s for s in signatures if (s.algorithm, s.key_id) == (_ALGORITHM, wanted))
    if not found:
        raise BadPackage(f"{path} has no signature by the key {wanted}; get it from whom you trust")
    try:
        key.verify(
            base64.b64decode(found[0].signature), statement(manifest_sha256, found[0].comment)
        )
    except InvalidSignature as error:
        raise BadPackage(
            f"{path} was changed after the key {wanted} signed it, or its signature is another"
            " package's; get it again from whom you trust"
        ) from error
    return found[0]


def parse(data: bytes, path: str) -> list[Signature]:
    """What the entry holds. Raises BadPackage for what is no list of signatures."""
    try:
        root = json_text.parse(data)
        if root["version"] != 1:
            raise BadPackage(
                f"{path} has signatures of version {root['version']}, which this Ingot does not"
                " know; update Ingot"
            )
        found = [Signature(**values) for values in root["signatures"]]
        for signature in found:
            if not all(isinstance(v, str) and v.isprintable() for v in asdict(signature).values()):
                raise ValueError("a value is no line of text")
            base64.b64decode(signature.signature, validate=True)
        if len({(s.algorithm, s.key_id) for s in found}) < len(found):
            raise ValueError("a key has signed twice")
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        raise BadPackage(
            f"the signatures of {path} cannot be read ({error}); get the package again"
        ) from error
    return found


def pack(signatures: Iterable[Signature]) -> bytes:
    root = {"version": 1, "signatures": [asdict(signature) for signature in signatures]}
    return json.dumps(root, indent=1).encode()


def read_public_key(path: Path) -> Ed25519PublicKey:
    """A PEM file with a SubjectPublicKeyInfo. Raises BadInput for anything else."""
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    pem = _read(path)
    if b"PRIVATE KEY" in pem:
        raise BadInput(f"{path} is a private key; give the public one, and keep this one secret")
    try:
        key = load_pem_public_key(pem)
    except Exception as error:  # of several kinds: ValueError, UnsupportedAlgorithm
        raise BadInput(f"{path} is no public key in PEM; {_MAKE}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"{path} is no Ed25519 key; {_MAKE}")
    return key


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """A PEM file with a PKCS#8 key. The pass phrase of an encrypted one comes from the variable
    INGOT_KEY_PASSPHRASE, or is asked for on a terminal. Raises BadInput for anything else."""
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = _read(path)
    if b"PUBLIC KEY" in pem:
        raise BadInput(f"{path} is a public key; to sign takes the private one")
    passphrase = _passphrase(path) if b"ENCRYPTED" in pem else None
    try:
        key = load_pem_private_key(pem, passphrase)
    except Exception as error:  # of several kinds: ValueError, UnsupportedAlgorithm
        hint = "; is that its pass phrase?" if passphrase is not None else f"; {_MAKE}"
        raise BadInput(f"{path} cannot be read as a private key in PEM{hint}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{path} is no Ed25519 key; {_MAKE}")
    return key


def _passphrase(path: Path) -> bytes:
    given = os.environ.get(PASSPHRASE)
    if given is None and sys.stdin.isatty():
        given = getpass.getpass(f"pass phrase of {path}: ")
    if given is None:
        raise BadInput(f"{path} is encrypted; give its pass phrase in the variable {PASSPHRASE}")
    return given.encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read the key {path}: {error.strerror}") from error


def _need_cryptography() -> None:
    if importlib.util.find_spec("cryptography") is None:
        raise BadInput(
            "cryptography is not installed; signatures need it: pip install 'ingot[sign]'"
        )

"""`ingot sign`: keys, outputs, and a signature that others can check."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ingot.export.archive import ArchiveWriter
from ingot.runtime import BadInput, BadPackage, read_manifest, sign_command, signing
from ingot.runtime.sign_command import sign
from tests.signing.packages import ENTRIES, Keys, check, ingot, verified, write_package


def test_the_commands_with_openssls_keys(demo_package: Path, tmp_path: Path) -> None:
    private, public, signed = (tmp_path / n for n in ("private.pem", "public.pem", "signed.pt2"))
    openssl = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)]
    subprocess.run(openssl, check=True)
    openssl = ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(openssl, check=True)
    assert "unsigned" in ingot("verify", demo_package).stdout
    made = ingot("sign", demo_package, "--key", private, "-o", signed, "--comment", "1.0", "--json")
    assert made.returncode == 0, made.stderr
    found = json.loads(ingot("verify", signed, "--key", public, "--json").stdout)
    assert found["signatures"] == [{**json.loads(made.stdout), "checked": True}]
    assert found["signatures"][0]["comment"] == "1.0"
    assert "not checked" in ingot("verify", signed).stdout
    der = ["openssl", "pkey", "-pubin", "-in", str(public), "-outform", "DER"]
    digest = subprocess.run(
        ["sha256sum"], input=subprocess.run(der, capture_output=True).stdout, capture_output=True
    )
    assert digest.stdout.decode().split()[0] == found["signatures"][0]["key_id"]
    for arguments in (("verify", demo_package, "--key", public), ("verify", signed, "--key", "no")):
        refused = ingot(*arguments)
        assert refused.returncode == 2, refused
        assert refused.stderr.startswith("ingot: ")
        assert refused.stderr.count("\n") == 1
    assert read_manifest(signed) == read_manifest(demo_package)


def test_openssl_checks_a_signature(package: Path, keys: Keys, tmp_path: Path) -> None:
    """As docs/security.md says, without Ingot."""
    sign(package, package, keys.private, "release 1.4")
    with zipfile.ZipFile(package) as archive:
        manifest = archive.read("model/ingot/manifest.json")
        (found,) = json.loads(archive.read("model/ingot/signature.json"))["signatures"]
    digest = hashlib.sha256(manifest).hexdigest()
    signature, statement = tmp_path / "signature", tmp_path / "statement"
    signature.write_bytes(base64.b64decode(found["signature"]))
    lines = ("ingot package signature 1", f"manifest {digest}", "comment release 1.4", "")
    openssl = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys.public), "-rawin"]
    openssl += ["-in", str(statement), "-sigfile", str(signature)]
    statement.write_text("\n".join(lines))
    assert subprocess.run(openssl, capture_output=True).returncode == 0
    statement.write_text("\n".join(lines).replace("1.4", "1.5"))
    assert subprocess.run(openssl, capture_output=True).returncode == 1


def test_what_was_there_stays(package: Path, keys: Keys, tmp_path: Path) -> None:
    before = package.read_bytes()
    signed = tmp_path / "signed.pt2"
    sign(package, signed, keys.private)
    with zipfile.ZipFile(package) as archive:
        directory = archive.start_dir
        names = archive.namelist()
    assert package.read_bytes() == before
    assert signed.read_bytes()[:directory] == before[:directory]
    with zipfile.ZipFile(signed) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*names, "model/ingot/signature.json"]
    assert all(entry.start % 64 == 0 for entry in verified(signed).archive.entries.values())


def test_in_place_through_a_link(package: Path, keys: Keys, tmp_path: Path) -> None:
    package.chmod(0o640)
    link = tmp_path / "link.pt2"
    link.symlink_to(package)
    sign(link, link, keys.private)
    assert link.is_symlink()
    assert package.stat().st_mode & 0o777 == 0o640
    check(package, keys.public)
    other = tmp_path / "other.pt2"
    other.write_bytes(b"before")
    sign(package, other, keys.private)
    check(other, keys.public)


def test_several_signers(package: Path, keys: Keys, tmp_path: Path) -> None:
    second, third = Keys(tmp_path, "second"), Keys(tmp_path, "third")
    sign(package, package, keys.private, "one")
    sign(package, package, second.private)
    once = package.read_bytes()
    sign(package, package, keys.private, "again")
    assert check(package, keys.public).comment == "again"
    assert check(package, second.public).comment == ""
    assert len(verified(package).signatures) == 2
    with pytest.raises(BadPackage, match="has no signature by the key"):
        check(package, third.public)
    sign(package, package, second.private)
    sign(package, package, keys.private, "one")
    sign(package, package, second.private)
    assert len(package.read_bytes()) == len(once)


def test_keys_of_other_kinds(package: Path, keys: Keys, tmp_path: Path) -> None:
    others = [
        Keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048)),
        Keys(tmp_path, "ec", ec.generate_private_key(ec.SECP256R1())),
    ]
    for other in others:
        with pytest.raises(BadInput, match="is no Ed25519 key; make one with: openssl"):
            sign(package, package, other.private)
        with pytest.raises(BadInput, match="is no Ed25519 key; make one with: openssl"):
            signing.read_public_key(other.public)
    with pytest.raises(BadInput, match="is a public key"):
        sign(package, package, keys.public)
    with pytest.raises(BadInput, match="is a private key"):
        signing.read_public_key(keys.private)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("-----BEGIN KEY-----\n")
    with pytest.raises(BadInput, match="cannot be read as a private key"):
        sign(package, package, nonsense)
    with pytest.raises(BadInput, match="is no public key in PEM"):
        signing.read_public_key(nonsense)
    with pytest.raises(BadInput, match="cannot read the key"):
        signing.read_public_key(tmp_path)


def test_an_encrypted_key(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(tmp_path, "hidden", phrase=b"open sesame")
    monkeypatch.delenv(signing.PASSPHRASE, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(BadInput, match="is encrypted; give its pass phrase in the variable"):
        sign(package, package, keys.private)
    monkeypatch.setenv(signing.PASSPHRASE, "open barley")
    with pytest.raises(BadInput, match="is that its pass phrase"):
        sign(package, package, keys.private)
    monkeypatch.setenv(signing.PASSPHRASE, "open sesame")
    sign(package, package, keys.private)
    check(package, keys.public)


@pytest.mark.parametrize("comment", ["two\nlines", "\x1b[31m", "x" * 201])
def test_comments_are_a_line(package: Path, keys: Keys, comment: str) -> None:
    with pytest.raises(BadInput, match="--comment must be a line"):
        sign(package, package, keys.private, comment)


def test_without_cryptography(package: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(package, package, keys.private)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert verified(package).signatures
    with pytest.raises(BadInput, match=r"pip install 'ingot\[sign\]'"):
        check(package, keys.public)


def test_a_disk_that_is_full(package: Path, keys: Keys, tmp_path: Path) -> None:
    package = write_package(package, {**ENTRIES, "ingot/weights.bin": bytes(1 << 20)})
    before, names = package.read_bytes(), set(tmp_path.iterdir())
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, limit[1]))
    try:
        with pytest.raises(BadInput, match="cannot write .*: File too large; nothing was left"):
            sign(package, package, keys.private)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    with pytest.raises(BadInput, match="cannot write .*: No such file or directory"):
        sign(package, tmp_path / "none" / "signed.pt2", keys.private)
    assert package.read_bytes() == before
    assert set(tmp_path.iterdir()) == names


def test_outputs_that_are_no_files(package: Path, keys: Keys, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for output in (pipe, tmp_path):
        with pytest.raises(BadInput, match="is no file to write a package to"):
            sign(package, output, keys.private)
    assert pipe.is_fifo()


def test_interrupted(
    package: Path, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, names = package.read_bytes(), set(tmp_path.iterdir())

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sign_command, "_copy", stop)
    with pytest.raises(KeyboardInterrupt):
        sign(package, package, keys.private)
    assert package.read_bytes() == before
    assert set(tmp_path.iterdir()) == names


def test_without_copy_file_range(
    package: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError

    monkeypatch.setattr(os, "copy_file_range", refuse)
    sign(package, package, keys.private)
    check(package, keys.public)


def test_weights_are_never_in_memory(keys: Keys, tmp_path: Path) -> None:
    package = write_package(tmp_path / "model.pt2", {"ingot/weights.bin": bytes(64 << 20)})
    tracemalloc.start()
    try:
        sign(package, package, keys.private)
        check(package, keys.public)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


class SparseFile(io.FileIO):
    """A new file in which zeros that are written become a hole."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+")

    def write(self, data: Any) -> int:
        if len(data) < 4096 or memoryview(data).nbytes != len(data) or any(data[:64]):
            return super().write(data)
        self.truncate(self.seek(len(data), io.SEEK_CUR))
        return len(data)


@pytest.mark.full
def test_beyond_4_gib(keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes and offsets that need zip64's fields."""
    path, zeros = tmp_path / "large.pt2", bytes(1 << 24)
    monkeypatch.setattr("ingot.export.archive.HugePageFile", SparseFile)
    with ArchiveWriter(path) as archive:
        archive.add("ingot/weights.bin", [zeros] * (4096 // 16 + 1))
        manifest = {"entries": archive.entries}
        archive.add_last("ingot/manifest.json", json.dumps(manifest).encode())
    assert path.stat().st_size > 1 << 32
    try:
        sign(path, path, keys.private)
        check(path, keys.public)
        with zipfile.ZipFile(path) as archive:
            assert json.loads(archive.read("model/ingot/signature.json"))["version"] == 1
    finally:
        path.unlink()  # signing fills its holes, and pytest keeps the folders of three runs

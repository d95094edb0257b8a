"""`ingot sign` and `ingot verify`: what is signed is what is there, all of it, or it is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import resource
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import ingot as ingot_module
from ingot import native
from ingot.cli import main
from ingot.export.archive import ArchiveWriter
from ingot.runtime import (
    BadInput,
    BadPackage,
    read_manifest,
    sign_command,
    signing,
    verification,
)
from ingot.runtime.sign_command import sign
from ingot.runtime.verification import Verified, open_package, signed_manifest, verify
from tests.conftest import ROOT

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


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "model.pt2")


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


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path, "key")


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


def test_every_byte_counts(keys: Keys, tmp_path: Path) -> None:
    package = write_package(tmp_path / "model.pt2", {"ingot/weights.bin": b"w"})
    sign(package, package, keys.private, "a comment")
    data = package.read_bytes()
    with package.open("r+b", buffering=0) as file:
        for at in range(len(data)):
            os.pwrite(file.fileno(), bytes([data[at] ^ 1 << at % 8]), at)
            with pytest.raises(BadPackage):
                check(package, keys.public)
            os.pwrite(file.fileno(), data[at : at + 1], at)
    check(package, keys.public)


def test_cut_short_anywhere(keys: Keys, tmp_path: Path) -> None:
    package = write_package(tmp_path / "model.pt2", {"ingot/weights.bin": b"w"})
    sign(package, package, keys.private)
    for size in reversed(range(package.stat().st_size)):
        os.truncate(package, size)
        with pytest.raises(BadPackage):
            verified(package)


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


def edited(edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(edit(path.read_bytes()))

    return change


def _gap(data: bytes) -> bytes:
    """64 bytes that no entry has, before the directory."""
    (start,) = struct.unpack("<I", data[-6:-2])
    moved = struct.pack("<I", start + 64)
    return data[:start] + bytes(64) + data[start:-6] + moved + data[-2:]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_entry("model/ingot/extra.txt"), "does not list: ingot/extra.txt"),
        (with_entry("model/../x"), r"an entry is named 'model/../x'"),
        (with_entry("model//x"), "an entry is named"),
        (with_entry("model/a\nb"), "an entry is named"),
        (with_entry("other/ingot/weights.bin"), "an entry is named"),
        (with_entry("model/x", external_attr=0o120777 << 16), "what export does not write"),
        (with_entry("model/x", b"x" * 100, compress_type=zipfile.ZIP_DEFLATED), "is compressed"),
        (with_entry("model/x", comment=b"c"), "what export does not write"),
        (with_entry("model/x", extra=b"\1\2\0\0"), "an extra field that export does not write"),
        (edited(lambda data: data + b"x"), "something follows its directory"),
        (edited(lambda data: data[:-2] + b"\1\0x"), "something follows its directory"),
        (edited(lambda data: b"#!" + data), "is not an Ingot package"),
        (edited(lambda data: data[:1] + data), "is not an Ingot package"),
        (edited(_gap), "belong to no entry"),
        (edited(lambda data: b""), "is not an Ingot package"),
    ],
)
def test_one_reading_only(package: Path, change: Callable[[Path], None], sentence: str) -> None:
    change(package)
    with pytest.raises(BadPackage, match=sentence):
        verified(package)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_twice(package: Path) -> None:
    with_entry("model/ingot/weights.bin", b"other weights")(package)
    with pytest.raises(BadPackage, match=r"ingot/weights.bin is there twice"):
        verified(package)


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        ({name: {"bytes": 1, "sha256": ""} for name in ENTRIES}, "was changed: ingot/"),
        ({"ingot/none": {"bytes": 1, "sha256": ""}}, "has no entry ingot/none"),
        ({"ingot/manifest.json": {"bytes": 1, "sha256": ""}}, "it lists ingot/manifest.json"),
        ({"ingot/weights.bin": {}}, "cannot be read"),
        ([], "cannot be read"),
    ],
)
def test_manifests_that_lie(tmp_path: Path, stated: Any, sentence: str) -> None:
    path = write_package(tmp_path / "model.pt2", stated=stated)
    with pytest.raises(BadPackage, match=sentence):
        verified(path)


def test_a_manifest_that_says_two_things(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with ArchiveWriter(path) as archive:
        archive.add_last("ingot/manifest.json", b'{"entries": {}, "entries": {}}')
    with pytest.raises(BadPackage, match="a name is there twice"):
        verified(path)


def test_a_signature_fits_no_other_package(package: Path, keys: Keys, tmp_path: Path) -> None:
    sign(package, package, keys.private)
    with zipfile.ZipFile(package) as archive:
        signature = archive.read("model/ingot/signature.json")
    entries = {**ENTRIES, "ingot/weights.bin": b"other weights, hashed in their manifest"}
    other = write_package(tmp_path / "other.pt2", entries)
    with_entry("model/ingot/signature.json", signature)(other)
    assert verified(other).signatures
    with pytest.raises(BadPackage, match=r"was changed after the key \w+ signed it"):
        check(other, keys.public)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"version": 1, "signatures": [{}]}',
        b'{"version": 2}',
        b'{"version": 1, "signatures": [{"algorithm": "ed25519", "key_id": "a",'
        b' "comment": "\\u001b", "signature": ""}]}',
        b"[" * 100_000,
    ],
)
def test_no_list_of_signatures(package: Path, data: bytes) -> None:
    with_entry("model/ingot/signature.json", data)(package)
    with pytest.raises(BadPackage, match="signatures"):
        verified(package)


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


def test_load_by_key(demo_package: Path, keys: Keys, tmp_path: Path) -> None:
    signed = tmp_path / "signed.pt2"
    sign(demo_package, signed, keys.private)
    tokens = ("--tokens", "1,2,3", "--max-new-tokens", 2, "--json")
    ran = ingot("run", signed, "--key", keys.public, *tokens)
    assert ran.returncode == 0, ran.stderr
    with pytest.raises(BadPackage, match="has no signature by the key"):
        ingot_module.load(signed, key=Keys(tmp_path, "other").public)
    with pytest.raises(BadPackage, match="has no signature by the key"):
        ingot_module.load(demo_package, key=keys.public)
    with pytest.raises(BadInput, match="cannot read the key"):
        ingot_module.load(signed, key="")
    with pytest.raises(BadInput, match="key is for packages in the lean runtime alone"):
        ingot_module.load("model.onnx", key=keys.public)
    with pytest.raises(BadInput, match="verify is for packages in the lean runtime alone"):
        ingot_module.load(signed, backend="torch", verify=True)  # type: ignore[call-overload]


SIGNED = "the signed package"
README = ROOT / "README.md"
COMMANDS: dict[str, tuple[object, ...]] = {
    "eval": ("eval", SIGNED, "--text", README, "--limit", 20, "--against", SIGNED),
    "bench": ("bench", SIGNED, "--prompt-tokens", 4, "--new-tokens", 2, "--repeats", 1),
    "profile": ("profile", SIGNED, "--tokens", 1, "--new-tokens", 2, "--repeats", 1),
    "compare": ("compare", SIGNED, SIGNED, "--prompt", "a", "--new-tokens", 2, "--repeats", 1),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_what_loads_packages_takes_a_key(
    command: tuple[object, ...], demo_package: Path, keys: Keys, tmp_path: Path
) -> None:
    signed = tmp_path / "signed.pt2"
    sign(demo_package, signed, keys.private)

    def run(key: Path, *packages: Path) -> Result:
        """The command with these packages in their places."""
        given = iter(packages)
        words = [str(next(given) if word is SIGNED else word) for word in command]
        return CliRunner().invoke(main, [*words, "--key", str(key), "--json"])

    found = run(keys.public, signed, signed)
    assert found.exit_code == 0, found.output
    other = Keys(tmp_path, "other").public
    for key, *packages in ((other, signed, signed), (keys.public, signed, demo_package)):
        if command.count(SIGNED) == 2 or key is other:
            found = run(key, *packages)
            assert found.exit_code == 2, found.output
            assert "has no signature by the key" in found.stderr.splitlines()[-1]


def test_checks_that_would_check_nothing(keys: Keys) -> None:
    traces = ROOT / "tests" / "profiling" / "traces"
    recorded = traces / "ingot.json"
    for sentence, command in {
        "and no source is one": ("compare", recorded, traces / "eager.json"),
        "with --trace none is": ("profile", "model.pt2", "--trace", recorded),
    }.items():
        found = CliRunner().invoke(main, [*map(str, command), "--key", str(keys.public)])
        assert found.exit_code == 2, found.output
        assert sentence in found.stderr


def test_load_by_key_reads_all(demo_package: Path, keys: Keys, tmp_path: Path) -> None:
    signed = tmp_path / "signed.pt2"
    sign(demo_package, signed, keys.private)
    weights = verified(signed).archive.entries["ingot/weights.bin"]
    data = bytearray(signed.read_bytes())
    data[weights.start + 1000] ^= 1
    signed.write_bytes(data)
    ingot_module.load(signed)
    for options in ({"key": keys.public}, {"verify": True}):
        with pytest.raises(BadPackage, match=r"ingot/weights.bin does not have the hash"):
            ingot_module.load(signed, **options)


def test_another_file_after_the_check(
    demo_package: Path, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library opens the manifest that was signed, not whatever has come to lie at the path."""
    signed, other = tmp_path / "signed.pt2", tmp_path / "other.pt2"
    sign(demo_package, signed, keys.private)
    with zipfile.ZipFile(demo_package) as source, ArchiveWriter(other) as target:
        for name in json.loads(source.read("model/ingot/manifest.json"))["entries"]:
            target.add(name, source.read(f"model/{name}"))
        target.add_last("ingot/manifest.json", source.read("model/ingot/manifest.json") + b" ")

    def check_then_replace(path: Path, key: Path) -> str:
        digest = signed_manifest(path, key)
        other.replace(signed)
        return digest

    monkeypatch.setattr(verification, "signed_manifest", check_then_replace)
    with pytest.raises(BadPackage, match="is not the package that was asked for"):
        ingot_module.load(signed, key=keys.public)


def test_cpp_runs_the_pinned_package_only(demo_package: Path) -> None:
    pin = verified(demo_package).manifest_sha256
    program = [str(native.find("ingot-run")), str(demo_package), "--tokens", "1", "--verify"]
    for given, code in ((pin, 0), (pin.upper(), 2), ("", 2)):
        ran = subprocess.run([*program, "--manifest-sha256", given], capture_output=True, text=True)
        assert ran.returncode == code, ran
        assert (pin in ran.stderr) == (code == 2)


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

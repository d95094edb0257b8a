"""What loads packages runs those that a key signed, and no others."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import ingot as ingot_module
from ingot import native
from ingot.cli import main
from ingot.export.archive import ArchiveWriter
from ingot.runtime import BadInput, BadPackage, verification
from ingot.runtime.sign_command import sign
from ingot.runtime.verification import signed_manifest
from tests.conftest import ROOT
from tests.signing.packages import Keys, ingot, verified


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

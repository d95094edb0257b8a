"""A package with code for several ISA levels: one weight store, the right code chosen, any forced,
and no instruction above its level."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ingot import native
from ingot.export import ExportError, export_module, torch_versions
from ingot.export.cache import Compiled
from ingot.export.isa import LEVELS, machine_level
from ingot.export.package import Source
from ingot.profiling.record import UNATTRIBUTED
from ingot.runtime import inspect_command
from ingot.runtime.errors import BadPackage
from ingot.runtime.torch_backend import choose_variant
from tests.conftest import manifest_of
from tests.disassembly import instructions
from tests.test_cli import ingot

OWN = machine_level()
LOWER = [level.name for level in LEVELS if level < OWN]
NAMES = [*LOWER[-1:], OWN.name]  # two where the CPU has two, lowest first; more take longer
pytestmark = pytest.mark.skipif(
    not torch_versions.can_target(), reason="this torch builds for the machine's level alone"
)
Exported = tuple[Path, dict[str, Any], nn.Module]


class Vectors(nn.Module):
    """What Inductor has vectors for: sums, exponentials, calls of Sleef, and integers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(64, 96), nn.LayerNorm(96)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        h = nn.functional.silu(self.norm(self.up(x))) * torch.sin(steps[:, None] * 3.0)
        out: Tensor = torch.softmax(h, -1) + torch.exp(-h).mean(-1, keepdim=True).bfloat16().float()
        return out


def export(path: Path, isa: str) -> Exported:
    torch.manual_seed(3)
    module, count = Vectors().eval(), torch.export.Dim("n", min=1, max=1024)
    record = export_module(
        module,
        (torch.randn(5, 64), torch.arange(5)),
        path,
        dynamic_shapes=({0: count}, {0: count}),
        name="vectors",
        isa=isa,
    )
    return path, record, module


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(tmp_path_factory.mktemp("variants") / "vectors.pt2", ",".join(NAMES))


def test_the_weights_are_stored_once(exported: Exported) -> None:
    path, _, module = exported
    manifest = manifest_of(path)
    assert [variant["isa"] for variant in manifest["variants"]] == NAMES[::-1]
    bound = sum(p.numel() * 4 for p in module.parameters())
    assert bound <= manifest["entries"]["ingot/weights.bin"]["bytes"] < bound * 1.5
    shown = ingot("inspect", path).stdout
    for variant in manifest["variants"]:
        assert f"{variant['isa']}, {manifest['entries'][variant['entry']]['bytes']:,}" in shown


def check_instructions(package: Path, folder: Path) -> None:
    """None is above its variant's level, and each variant uses its own."""
    with zipfile.ZipFile(package) as archive:
        for variant in manifest_of(package)["variants"]:
            code = folder / f"{variant['isa']}.so"
            code.write_bytes(archive.read(f"model/{variant['entry']}"))
            found, level = list(instructions(code)), int(variant["isa"][-1])
            assert [one.line for one in found if one.level > level] == []
            assert level in {one.level for one in found}, f"no vectors of {variant['isa']}"


def test_no_instruction_is_above_its_variants_level(exported: Exported, tmp_path: Path) -> None:
    check_instructions(exported[0], tmp_path)


RUN = """
import json, sys
import numpy as np
import ingot
x = np.load(sys.argv[2])
package = ingot.load(sys.argv[1], **json.loads(sys.argv[3]))
(out,) = package.run(x=x, steps=np.arange(len(x))).values()
np.save(sys.argv[4], np.asarray(out))
print(getattr(package, "variant", None))
"""


def run(package: Path, folder: Path, isa: str | None, backend: str | None = None) -> Any:
    """Output and the variant that a process chose, or its complaint."""
    x, out = folder / "x.npy", folder / f"{isa}-{backend}.npy"
    np.save(x, np.random.default_rng(1).standard_normal((7, 64), dtype=np.float32))
    env = {name: value for name, value in os.environ.items() if name != "INGOT_ISA"}
    env |= {} if isa is None else {"INGOT_ISA": isa}
    options = json.dumps({} if backend is None else {"backend": backend})
    command = [sys.executable, "-c", RUN, str(package), str(x), options, str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        return done.stderr
    return np.load(x), np.load(out), done.stdout.strip()


def check_result(exported: Exported, folder: Path, isa: str | None, chosen: str) -> None:
    path, _, module = exported
    x, out, variant = run(path, folder, isa)
    assert variant == chosen
    with torch.no_grad():
        expected = module(torch.from_numpy(x), torch.arange(len(x))).numpy()
    np.testing.assert_allclose(out, expected, rtol=2e-5, atol=4e-3)  # rounded to bfloat16


def test_each_variant_is_right_when_forced(exported: Exported, tmp_path: Path) -> None:
    check_result(exported, tmp_path, None, OWN.name)
    for name in NAMES:
        check_result(exported, tmp_path, name, name)


@pytest.mark.full
@pytest.mark.parametrize("name", LOWER[:-1])
def test_the_lowest_levels_too(name: str, tmp_path: Path) -> None:
    made = export(tmp_path / "lowest.pt2", name)
    check_instructions(made[0], tmp_path)
    check_result(made, tmp_path, None, name)


def test_the_torch_backend_takes_the_same_variant(exported: Exported, tmp_path: Path) -> None:
    _, lean, _ = run(exported[0], tmp_path, NAMES[0])
    _, theirs, _ = run(exported[0], tmp_path, NAMES[0], "torch")
    np.testing.assert_allclose(theirs, lean, rtol=2e-5, atol=1e-5)
    variants = manifest_of(exported[0])["variants"]
    for name in NAMES:
        assert choose_variant(variants, name)["isa"] == name
    for name in ("x86-64-v4-bf16", "x86-64-v4-amx"):
        assert choose_variant(variants, name)["isa"] == NAMES[-1]
    with pytest.raises(BadPackage, match="it has code for x86-64-v4, and this process runs x86-64"):
        choose_variant([{"isa": "x86-64-v4"}], "x86-64-v3")


def test_what_the_environment_may_not_ask(exported: Exported, tmp_path: Path) -> None:
    assert '"avx9" is no ISA level; INGOT_ISA takes x86-64-v2' in run(exported[0], tmp_path, "avx9")
    environment = {**os.environ, "INGOT_ISA": "avx9"}
    cli = [sys.executable, "-m", "ingot", "run", str(exported[0]), "--tokens", "1"]
    for command in (cli, [str(native.find("ingot-run")), str(exported[0]), "--tokens", "1"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert "INGOT_ISA takes x86-64-v2" in done.stderr


def test_the_record_has_a_phase_for_each_variant(
    exported: Exported,
) -> None:
    path, record, _ = exported
    facts = record["facts"]["variants"]
    assert list(facts) == NAMES[::-1]
    compiled = [name for name, own in facts.items() if not own["cache_hit"]]
    events = {event["name"]: event for event in record["events"]}
    assert sum(event["duration_s"] for event in events.values()) == pytest.approx(record["wall_s"])
    assert events[UNATTRIBUTED]["duration_s"] < 0.1 * record["wall_s"]
    for name in compiled if len(compiled) > 1 else ():
        parts = {part["name"]: part["duration_s"] for part in events[name]["children"]}
        assert {"lowering", "code generation", "C++ compile and link"} <= set(parts)
        assert sum(parts.values()) == pytest.approx(events[name]["duration_s"])
    assert all(own["code_bytes"] > 0 for own in facts.values())
    # One graph: its calls are those of every variant.
    assert not any("calls" in own for own in facts.values())
    report = inspect_command.describe(path)["report"]
    assert report["facts"]["calls"] == record["facts"]["calls"]
    for name in NAMES:
        assert f"code for {name}" in ingot("report", path).stdout


def test_variants_that_want_different_weights_are_refused() -> None:
    def compiled(*constants: str) -> Compiled:
        return Compiled(Path("model.so"), constants, (), {})

    contract: Any = None
    same = Source(contract, {LEVELS[2]: compiled("a", "b"), LEVELS[1]: compiled("b", "a")})
    assert same.constants == ("a", "b")
    with pytest.raises(ExportError, match=r"x86-64-v3 and x86-64-v4 would need different.*\(c\)"):
        _ = Source(contract, {LEVELS[2]: compiled("a"), LEVELS[1]: compiled("a", "c")}).constants

"""ISA levels: found from the CPU's flags, refused above them, exact in Inductor's eyes."""

from pathlib import Path

import pytest

from ingot.export import build, isa, torch_versions
from ingot.export.errors import ExportError
from ingot.export.isa import LEVELS, find_levels, inductor_targets, machine_level


def cpuinfo(*levels: str) -> str:
    flags = [flag for level in LEVELS if level.name in levels for flag in sorted(level.cpu_flags)]
    return f"processor : 0\nflags\t\t: fpu sse2 {' '.join(flags)}\n"


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (("x86-64-v2",), "x86-64-v2"),
        (("x86-64-v2", "x86-64-v3"), "x86-64-v3"),
        (("x86-64-v2", "x86-64-v3", "x86-64-v4"), "x86-64-v4"),
        (("x86-64-v2", "x86-64-v4"), "x86-64-v2"),  # a level counts only with those below it
    ],
)
def test_level_from_flags(levels: tuple[str, ...], expected: str) -> None:
    assert machine_level(cpuinfo(*levels)).name == expected


def test_too_old_a_cpu_is_refused() -> None:
    with pytest.raises(ExportError, match="below x86-64-v2"):
        machine_level(cpuinfo())


def test_unknown_level_is_refused() -> None:
    for names in ("avx512", "x86-64-v2,avx512"):
        with pytest.raises(ExportError, match="unknown ISA level 'avx512'; choose among x86-64-v2"):
            find_levels(names)


def test_levels_come_highest_first_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_versions, "installed", lambda: "2.13.0")
    own = machine_level()
    lower = [level for level in LEVELS if level <= own]
    assert find_levels(",".join(level.name for level in (*lower, *lower))) == tuple(lower[::-1])
    assert find_levels(None) == (own,)


def test_a_level_above_the_machines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "machine_level", lambda: LEVELS[1])
    with pytest.raises(ExportError, match="cannot build for x86-64-v4 here: this machine is x86-6"):
        find_levels("x86-64-v3, x86-64-v4")


@pytest.fixture
def newer_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with all that torch asks about: Inductor's own objects would then use it."""
    torch = pytest.importorskip("torch")
    for name in ("avx512_bf16", "vnni", "amx_tile", "amx_fp16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda: True)


@pytest.mark.usefixtures("newer_cpu")
def test_inductor_sees_the_level_alone() -> None:
    from torch._inductor import config, cpu_vec_isa

    before = cpu_vec_isa.valid_vec_isa_list
    for level in LEVELS:
        with (
            inductor_targets(level) as options,
            config.patch(torch_versions.inductor_options(options)),
        ):
            found = cpu_vec_isa.pick_vec_isa()
            assert found.bit_width() == level.vector_bits if level.vec_isa else not found
            assert options["cpp.march"] == level.name
    assert cpu_vec_isa.valid_vec_isa_list is before


@pytest.mark.usefixtures("newer_cpu")
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_the_compiler_is_told_the_level_and_no_extension(level: isa.IsaLevel) -> None:
    with inductor_targets(level) as options:
        command, _ = build._command(dict(options), ["a.cpp"], Path("a"), small=False)
    told = [word for word in command if word.startswith("-m")]
    assert told == [f"-march={level.name}"]

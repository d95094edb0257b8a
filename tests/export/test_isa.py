"""ISA levels: found from the CPU's flags, refused above them, exact in Inductor's eyes."""

import pytest

from ingot.export.errors import ExportError
from ingot.export.isa import LEVELS, find_level, inductor_targets, machine_level


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
    with pytest.raises(ExportError, match="unknown ISA level 'avx512'; choose one of x86-64-v2"):
        find_level("avx512")


def test_inductor_sees_the_level_alone() -> None:
    pytest.importorskip("torch")
    from torch._inductor import config, cpu_vec_isa

    before = cpu_vec_isa.valid_vec_isa_list
    for level in LEVELS:
        with inductor_targets(level) as options, config.patch(options):
            isa = cpu_vec_isa.pick_vec_isa()
            assert isa.bit_width() == level.vector_bits if level.vec_isa else not isa
            assert options["cpp.march"] == level.name
    assert cpu_vec_isa.valid_vec_isa_list is before

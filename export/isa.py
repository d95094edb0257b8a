"""Targets of generated code: exactly one x86-64 level, never more than it, whatever CPU builds it.

Inductor by itself compiles with -march=native and takes the widest vectors the building machine
has, so its code would not run on the next machine. Here a level (System V x86-64 psABI, section
3.1.1) fixes both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from . import torch_versions
from .errors import ExportError


@dataclass(frozen=True)
class IsaLevel:
    """One x86-64 microarchitecture level and the vectors that Inductor may use in it.

    Levels compare by what they demand: v3 < v4.
    """

    device: ClassVar[str] = "cpu"
    name: str
    cpu_flags: frozenset[str]  # as /proc/cpuinfo names them, beyond the level before
    vector_bits: int  # 0: scalar code, for the compiler to vectorise
    vec_isa: str  # class in torch._inductor.cpu_vec_isa

    @property
    def facts(self) -> dict[str, str]:
        """The manifest's, of a variant for this target."""
        return {"isa": self.name}

    @property
    def toolchain(self) -> dict[str, str]:
        """What compiles for it, beside torch and the C++ compiler, and its version."""
        return {}

    def __lt__(self, other: IsaLevel) -> bool:
        return LEVELS.index(self) < LEVELS.index(other)

    def __le__(self, other: IsaLevel) -> bool:
        return not other < self


LEVELS = (
    IsaLevel("x86-64-v2", frozenset({"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"}), 0, ""),
    IsaLevel(
        "x86-64-v3",
        frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}),
        256,
        "VecAVX2",
    ),
    IsaLevel(
        "x86-64-v4",
        frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
        512,
        "VecAVX512",
    ),
)


def machine_level(cpuinfo: str | None = None) -> IsaLevel:
    """The highest level this machine has. Raises ExportError below x86-64-v2."""
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    line = next((row for row in text.splitlines() if row.startswith("flags")), "")
    flags = set(line.partition(":")[2].split())
    best = None
    for level in LEVELS:
        if not level.cpu_flags <= flags:
            break
        best = level
    if best is None:
        raise ExportError("this CPU is below x86-64-v2; export on a newer machine")
    return best


def find_levels(names: str | None) -> tuple[IsaLevel, ...]:
    """Those of a list such as "x86-64-v3,x86-64-v4", highest first; the machine's own for None.

    Raises ExportError for a name that is unknown, a level above the machine's, or one that this
    torch cannot build for.
    """
    own = machine_level()
    if names is None:
        return (own,)
    found = {_find(name.strip(), own) for name in names.split(",")}
    torch_versions.check_levels(tuple(found), own)
    return tuple(sorted(found, reverse=True))


def _find(name: str, own: IsaLevel) -> IsaLevel:
    for level in LEVELS:
        if level.name == name:
            if own < level:
                raise ExportError(
                    f"cannot build for {name} here: this machine is {own.name}, and code for a "
                    f"higher level could not be checked; pass --isa {own.name} or lower"
                )
            return level
    known = ", ".join(level.name for level in LEVELS)
    raise ExportError(f"unknown ISA level '{name}'; choose among {known}, with commas between")


@cache
def _vectors(level: IsaLevel) -> list[Any]:
    """What Inductor may use: its own class of the level's width, whose flags are -march's alone.

    Inductor's objects ask the CPU that builds: VecAVX512 adds -mavx512bf16 where that has it, and
    others add VNNI and AMX. They also probe by compiling, which links against libtorch.
    """
    from torch._inductor import cpu_vec_isa

    if not level.vec_isa:
        return []
    theirs = getattr(cpu_vec_isa, level.vec_isa)
    own = {
        "__bool__": lambda self: True,
        "__hash__": theirs.__hash__,
        "build_arch_flags": lambda self: "",
    }
    return [type(f"Exactly{level.vec_isa}", (theirs,), own)()]


@contextmanager
def inductor_targets(level: IsaLevel) -> Iterator[dict[str, object]]:
    """While it is open Inductor sees `level`'s vectors alone; yields the options that go with it.

    `cpp.vec_isa_ok` skips Inductor's probe, which links against libtorch and therefore fails,
    silently making every kernel scalar, when `link_libtorch` is off.
    """
    from torch._inductor import cpu_vec_isa

    probe, vectors = cpu_vec_isa.valid_vec_isa_list, _vectors(level)
    cpu_vec_isa.valid_vec_isa_list = lambda: vectors  # type: ignore[assignment]
    try:
        yield {
            "cpp.march": level.name,
            "cpp.simdlen": level.vector_bits or None,
            "cpp.vec_isa_ok": bool(vectors),
        }
    finally:
        cpu_vec_isa.valid_vec_isa_list = probe

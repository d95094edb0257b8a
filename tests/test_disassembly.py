"""The check of instructions can fail: each level's are told from those below it, by example; and
the runtime's own libraries hold none beyond their functions' levels."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ingot import native
from tests.disassembly import AMX, BF16, NONE, instructions

pytestmark = pytest.mark.skipif(shutil.which("objdump") is None, reason="binutils are missing")

# In AT&T's syntax, a line each.
EXAMPLES = {
    2: """
        popcnt %rax, %rbx
        cmpxchg16b (%rax)
        pshufb %xmm1, %xmm2
        pcmpgtq %xmm1, %xmm2
        tzcnt %rax, %rbx
        rep stosb
    """,
    3: """
        vaddps %xmm1, %xmm2, %xmm3
        vpaddd %ymm1, %ymm2, %ymm3
        vfmadd231ps %ymm1, %ymm2, %ymm3
        vcvtph2ps %xmm1, %ymm2
        vcvtps2ph $0, %ymm2, %xmm1
        vpsllvd %ymm1, %ymm2, %ymm3
        vaddps %fs:(%rax), %ymm2, %ymm3
        andn %rax, %rbx, %rcx
        mulx %rax, %rbx, %rcx
        lzcnt %rax, %rbx
        movbe (%rax), %rbx
    """,
    4: """
        vaddps %zmm1, %zmm2, %zmm3
        vaddps %ymm1, %ymm2, %ymm16
        vaddps %ymm1, %ymm2, %ymm3{%k1}
        vaddps (%rax){1to8}, %ymm2, %ymm3
        vpternlogd $1, %xmm1, %xmm2, %xmm3
        vpermi2ps %ymm1, %ymm2, %ymm3
        vpmullq %ymm1, %ymm2, %ymm3
        vpconflictd %zmm1, %zmm2
        vcvtph2ps %ymm1, %zmm2
        vcvtps2ph $0, %zmm2, %ymm1
        vpcmpeqd %zmm1, %zmm2, %k1
        vpcompressd %zmm1, %zmm2
        vmovdqu8 %xmm1, %xmm2
        kmovd %eax, %k1
        kandq %k1, %k2, %k3
    """,
    BF16: """
        vdpbf16ps %zmm1, %zmm2, %zmm3
        vcvtne2ps2bf16 %zmm1, %zmm2, %zmm3
        vcvtneps2bf16 %zmm1, %ymm2
        vpdpbusd %zmm1, %zmm2, %zmm3
        vpdpwssds %zmm1, %zmm2, %zmm3
        {evex} vpdpbusd %xmm1, %xmm2, %xmm3
    """,
    AMX: """
        ldtilecfg (%rax)
        sttilecfg (%rax)
        tileloadd (%rax,%rbx,1), %tmm1
        tileloaddt1 (%rax,%rbx,1), %tmm1
        tilestored %tmm1, (%rax,%rbx,1)
        tilezero %tmm1
        tilerelease
        tdpbf16ps %tmm1, %tmm2, %tmm3
        tdpbssd %tmm1, %tmm2, %tmm3
        tdpbuud %tmm1, %tmm2, %tmm3
    """,
    NONE: """
        {vex} vpdpbusd %ymm1, %ymm2, %ymm3
        vpermb %zmm1, %zmm2, %zmm3
        vpermi2b %zmm1, %zmm2, %zmm3
        vpmadd52luq %zmm1, %zmm2, %zmm3
        vpcompressb %zmm1, %zmm2
        vpshldd $1, %zmm1, %zmm2, %zmm3
        vpopcntd %zmm1, %zmm2
        vaddph %zmm1, %zmm2, %zmm3
        vcvtph2psx %ymm1, %zmm2
        vmovw %eax, %xmm1
        vgf2p8mulb %zmm1, %zmm2, %zmm3
        vaesenc %zmm1, %zmm2, %zmm3
        aesenc %xmm1, %xmm2
        vpclmulqdq $0, %ymm1, %ymm2, %ymm3
        sha256rnds2 %xmm1, %xmm2
        tdpfp16ps %tmm1, %tmm2, %tmm3
        adcx %rax, %rbx
        rdrand %rax
    """,
}


def assembled(source: str, folder: Path) -> Path:
    path = folder / "code.o"
    subprocess.run(["as", "--64", "-o", path, "-"], input=source, text=True, check=True)
    return path


@pytest.mark.parametrize("level", EXAMPLES)
def test_every_example_needs_its_level(level: int, tmp_path: Path) -> None:
    lines = [line.strip() for line in EXAMPLES[level].strip().splitlines()]
    found = list(instructions(assembled("\n".join([".text", "f:", *lines, ""]), tmp_path)))
    assert len(found) == len(lines)
    wrong = [line for line, one in zip(lines, found, strict=True) if one.level != level]
    assert not wrong


# Functions that are compiled for a level and chosen at run time; all else is for any CPU.
LEVELLED = {
    "libingot.so.1": {NONE: "absorb_by_instructions"},  # SHA-256's, where the CPU has them
    "libingot_host.so.1": {3: r"Sleef_\w+f8", 4: r"Sleef_\w+f16"},
    "ingot-run": {},
}


@pytest.mark.parametrize("name", LEVELLED)
def test_the_runtime_runs_on_any_cpu_of_v2(name: str) -> None:
    patterns = {level: re.compile(pattern) for level, pattern in LEVELLED[name].items()}
    seen = set()
    for found in instructions(native.find(name)):
        level = next((n for n, p in patterns.items() if p.search(found.function)), 2)
        assert found.level <= level, found.line
        seen.add((level, found.level))
    assert {(level, level) for level in (2, *patterns)} <= seen

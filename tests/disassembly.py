"""The x86-64 level that each instruction of a binary needs, from objdump's disassembly.

The encoding tells most: EVEX (first byte 62) is AVX-512, VEX (c4, c5) is AVX, AVX2, FMA, F16C, BMI
or a mask register's; everything older has neither. What is of an extension that the levels of the
psABI (section 3.1.1) do not have is told by its name.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BF16, AMX, NONE = 5, 6, 7  # after 2, 3 and 4: the kernels' x86-64-v4-bf16 and -amx, and no level

_SEGMENTS = {"26", "2e", "36", "3e", "64", "65", "67"}  # prefixes that may come before VEX and EVEX
# Of v4's extensions: F, BW, CD, DQ and VL. Not of it, nor of v4-bf16: VBMI, VBMI2, IFMA, BITALG,
# VPOPCNTDQ, VP2INTERSECT, FP16.
_AVX512_OTHERS = re.compile(
    r"vpermb|vperm[it]2b|vpmultishiftqb|vp(compress|expand)[bw]|vpsh[lr]d.*|vpmadd52.*|vpopcnt.*"
    r"|vpshufbitqmb|vp2intersect.*|v(?!cvtps2ph$)\w+[ps]h|vcvtt?(ph2(?!ps$)|sh2)\w+|vmovw"
)
_BF16 = re.compile(r"vdpbf16ps|vcvtne\w*bf16\w*|vpdp(bu|ws)sds?")
_AMX = re.compile(r"tdpbf16ps|tdpb[su]{2}d|tile(loaddt?1?|stored|zero|release)|(ld|st)tilecfg")
# AES, PCLMULQDQ, GFNI, SHA, later AMX, ADX, RDRAND: in no level, in whatever encoding.
_OTHERS = re.compile(
    r"v?aes\w+|v?pclmul\w*|v?gf2p8\w+|sha(1|256)\w+|tdp\w+|tcmm\w+|tile\w+|ad[co]x|rd(rand|seed)"
)
_VEX_OTHERS = re.compile(rf"{_BF16.pattern}|vpdp\w+|vpmadd52.*|vbcstne.*")
_V3_LEGACY = ("lzcnt", "movbe")  # tzcnt runs as bsf where it is unknown, and compilers use it so
_PREFIXES = set("rep repz repnz lock bnd notrack data16 addr32 cs ds es fs gs {vex} {evex}".split())
_LINE = re.compile(r"\s*[0-9a-f]+:\t(?P<bytes>(?:[0-9a-f]{2} )+)\s*\t(?P<text>.*)")


class Instruction(NamedTuple):
    function: str  # mangled
    name: str  # without prefixes such as "rep" and "{vex}"
    level: int  # 2, 3, 4, BF16, AMX or NONE
    line: str


def instructions(binary: Path) -> Iterator[Instruction]:
    """Of all code sections, in order."""
    command = ["objdump", "-d", "--insn-width=15", str(binary)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    function = ""
    for line in listing.splitlines():
        if line.endswith(">:"):
            function = line.partition("<")[2][:-2]
        elif matched := _LINE.match(line):
            words = matched["text"].split()
            name = next((w for w in words if w not in _PREFIXES and not w.startswith("rex")), "")
            level = _level(matched["bytes"].split(), name, matched["text"])
            yield Instruction(function, name, level, f"{function}: {line.strip()}")


def _level(code: list[str], name: str, text: str) -> int:
    first = next(byte for byte in [*code, ""] if byte not in _SEGMENTS)
    if _AMX.fullmatch(name):
        return AMX
    if _OTHERS.fullmatch(name):
        return NONE
    if first == "62":
        if _BF16.fullmatch(name):
            return BF16
        return NONE if _AVX512_OTHERS.fullmatch(name) else 4
    if first in ("c4", "c5"):
        if _VEX_OTHERS.fullmatch(name):
            return NONE
        return 4 if re.search(r"%k[0-7]\b", text) else 3
    return 3 if name in _V3_LEGACY else 2

"""libingot_ops.so.1 itself: its table, its exports, the choice of the ISA level, no wider code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from ingot import native
from ingot.custom_ops import shims
from ingot.custom_ops.declare import OPS
from ingot.ops_library import last_error, library

from .conftest import LEVELS

LIBRARY = native.find("libingot_ops.so.1")


def tool(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_schema_table_equals_the_declarations() -> None:
    lib = library()
    rows = {lib.ingot_ops_name(i): lib.ingot_ops_schema(i) for i in range(lib.ingot_ops_count())}
    assert {name.decode(): text.decode() for name, text in rows.items()} == shims.schemas()
    assert lib.ingot_ops_name(-1) is None
    assert lib.ingot_ops_schema(lib.ingot_ops_count()) is None


def test_torch_parses_the_same_schemas() -> None:
    for op in OPS.values():
        theirs = op.overload._schema
        assert [a.name for a in theirs.arguments] == [a.name for a in op.schema.arguments]
        written = [a.alias_info is not None and a.alias_info.is_write for a in theirs.arguments]
        assert written == [a.mutated for a in op.schema.arguments]
        assert len(theirs.returns) == op.schema.outputs


def test_exports_are_the_c_interface_alone() -> None:
    symbols = {
        line.split()[-1] for line in tool("nm", "-D", "--defined-only", LIBRARY).splitlines()
    }
    assert all(symbol.startswith(("ingot_op_", "ingot_ops_")) for symbol in symbols)
    assert {f"ingot_op_{name}" for name in OPS} <= symbols


REGISTERS = {
    "v2": {"xmm"},
    "v3": {"xmm", "ymm"},
    "v4": {"xmm", "ymm", "zmm"},
    "v4_bf16": {"xmm", "ymm", "zmm"},
}
# Instructions that the psABI gives to a higher level, or to none. tzcnt runs as bsf where it is
# unknown, and compilers use it so.
_NEWER = (
    r"vpmadd52.*|vperm[it]?2?b|vpopcnt.*|vgf2p8.*|vaes.*|vpshufbitqmb|vpsh[lr]d.*|tdp.*|tile.*"
    r"|v(add|sub|mul|div|fn?m\w+)[ps]h"
)
_BF16 = r"vdpbf16ps|vcvtne\w*bf16\w*|vpdp(bu|ws)sds?"
_V4 = (
    r"k(mov|and|or|xor|not|shift|test|add|unpck)\w*|vp(ternlog|ermt2|ermi2|compress|expand|conflict"
    r"|lzcnt|movm2|mov[dqwb]2m|test[n]?m|cmpu?[bwdq])\w*|v(scalef|rndscale|getexp|getmant|range|reduce"
    r"|fixupimm|fpclass|dbpsadbw|blendm)\w*|vcvt\w*u[dq]q\w*"
)
_V3 = r"v(?!err|erw)\w+|andn|bextr|bls\w+|bzhi|mulx|pdep|pext|rorx|sarx|sh[lr]x|lzcnt|movbe"
BEYOND = {
    "v2": rf"{_V3}|{_V4}|{_BF16}|{_NEWER}",
    "v3": rf"{_V4}|{_BF16}|{_NEWER}",
    "v4": rf"{_BF16}|{_NEWER}",
    "v4_bf16": _NEWER,
}
SHIPPED = "INGOT_NATIVE_DIR" not in os.environ  # another build may emulate instructions


def test_no_instruction_is_beyond_its_level() -> None:
    """Disassembled: code outside the levels is the baseline's. A template or inline function shared
    by two levels would be linked once, at one of them."""
    function, level, seen = "", "v2", set()
    operand, opcode = re.compile(r"%([xyz]mm)(\d+)"), re.compile(r"^\s*[0-9a-f]+:\s+(\S+)")
    for line in tool("objdump", "-d", "--no-show-raw-insn", str(LIBRARY)).splitlines():
        if line.endswith(">:"):
            found = re.search(r"5ingot(?:2(v[234])|7(v4_bf16))", line)
            function, level = line, (found[1] or found[2]) if found else "v2"
            continue
        matched = opcode.match(line)
        if not matched:
            continue
        name, registers = matched[1], operand.findall(line)
        where = f"{function} {line}"
        assert {kind for kind, _ in registers} <= REGISTERS[level], where
        assert not re.fullmatch(BEYOND[level], name), where
        if level in ("v2", "v3"):
            assert "{%k" not in line, where
            assert all(int(n) < 16 for _, n in registers), where
        seen |= {(level, kind) for kind, _ in registers} | {(level, name)}
    assert {("v3", "ymm"), ("v4", "zmm"), ("v4_bf16", "zmm")} <= seen
    assert ("v4_bf16", "vdpbf16ps") in seen or not SHIPPED


def level_of_child(isa: str) -> str:
    code = (
        "import ingot.custom_ops, torch\nfrom ingot.ops_library import library, last_error\n"
        "print(library().ingot_ops_level() or last_error())\n"
        "try: print(torch.ops.ingot.embedding(torch.tensor([0]), torch.ones(1, 1, 64), 1).item())\n"
        "except RuntimeError as error: print(error)\n"
    )
    env = os.environ | {"INGOT_ISA": isa}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def test_environment_forces_the_level() -> None:
    assert level_of_child("x86-64-v2").splitlines() == ["b'x86-64-v2'", "1.0"]


def test_unknown_level_in_the_environment_is_refused() -> None:
    said = level_of_child("avx2").splitlines()
    assert said[0].startswith('"avx2" is no ISA level; INGOT_ISA takes x86-64-v2')
    assert said[1] == f"embedding: {said[0]}"


def test_default_level_is_the_highest() -> None:
    lib = library()
    chosen = lib.ingot_ops_level().decode()
    for level in LEVELS[LEVELS.index(chosen) + 1 :]:
        assert lib.ingot_ops_set_level(level.encode()) == 1
        assert last_error() == f"this CPU has {chosen}, not {level}; choose a lower level"
    assert lib.ingot_ops_level().decode() == chosen


def test_c_shims_name_each_op_once() -> None:
    declarations = shims.c_shims()
    assert set(declarations) == {op.overload for op in OPS.values()}
    assert declarations[torch.ops.ingot.linear.default] == [
        "AOTITorchError aoti_torch_cpu_linear(AtenTensorHandle x, AtenTensorHandle weight, "
        "AtenTensorHandle* bias, int64_t out_features, AtenTensorHandle* ret0)"
    ]

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
from ingot.custom_ops.eager import timed
from ingot.ops_library import last_error, library
from tests.disassembly import AMX, BF16, instructions

from .conftest import LEVELS, copies

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


@pytest.mark.parametrize("name", OPS)
def test_calls_timed_from_c_are_the_op(name: str, generator: torch.Generator) -> None:
    op = OPS[name]
    for case in op.cases:
        arguments = case.make(generator)
        ours, first, second = (copies(arguments) for _ in range(3))
        expected = op.overload(*ours)
        results = [torch.full_like(expected, -1.0)]
        measure = timed(op.schema, [first, second], results)
        assert measure(3, 1) > 0  # of the second
        torch.testing.assert_close(results[0], expected, rtol=0, atol=0, equal_nan=True)
        caches = [i for i, argument in enumerate(op.schema.arguments) if argument.mutated]
        assert all(ours[i].equal(second[i]) and first[i].equal(arguments[i]) for i in caches)


def test_calls_that_cannot_be_timed() -> None:
    weight = torch.zeros(1, 3, 64)  # packed
    x = torch.zeros(4, 3)
    measure = timed(OPS["linear"].schema, [(x, weight, None, 2)])
    for first, count in ((-1, 1), (0, 0)):
        with pytest.raises(RuntimeError, match="takes an op of the table, copies of its call"):
            measure(first, count)
    with pytest.raises(RuntimeError, match="copies of its call"):
        timed(OPS["linear"].schema, [])(0, 1)
    with pytest.raises(RuntimeError, match="linear: the output must be float32"):
        timed(OPS["linear"].schema, [(x, weight, None, 2)], [torch.zeros(1, 2)])(0, 1)


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


SHIPPED = "INGOT_NATIVE_DIR" not in os.environ  # another build may emulate instructions


def level_of(function: str) -> int:
    """That of the namespace it was compiled in; the baseline's for the rest."""
    found = re.search(r"5ingot(?:2v([234])|7(v4_bf16)|6v4_amx)", function)
    return 2 if found is None else int(found[1]) if found[1] else BF16 if found[2] else AMX


def test_no_instruction_is_beyond_its_level() -> None:
    """Disassembled: code outside the levels is the baseline's. A template or inline function shared
    by two levels would be linked once, at one of them."""
    seen = set()
    for found in instructions(LIBRARY):
        level = level_of(found.function)
        assert found.level <= level, found.line
        seen |= {(level, found.level), found.name}
    assert {(2, 2), (3, 3), (4, 4), (BF16, 4), (AMX, 4)} <= seen
    assert {(BF16, BF16), "vdpbf16ps"} <= seen or not SHIPPED
    assert {(AMX, AMX), "tdpbf16ps"} <= seen or not SHIPPED


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
        assert last_error().startswith(f"this CPU has {chosen}, not {level}; choose that or")
    assert lib.ingot_ops_level().decode() == chosen


def test_c_shims_name_each_op_once() -> None:
    declarations = shims.c_shims()
    assert set(declarations) == {op.overload for op in OPS.values()}
    assert declarations[torch.ops.ingot.linear.default] == [
        "AOTITorchError aoti_torch_cpu_linear(AtenTensorHandle x, AtenTensorHandle weight, "
        "AtenTensorHandle* bias, int64_t out_features, AtenTensorHandle* ret0)"
    ]

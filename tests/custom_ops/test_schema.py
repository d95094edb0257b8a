"""The schema parser, and what the generator makes of types that no op uses yet."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from ingot.custom_ops.schema import Argument, op_parameters, parse, shim_declaration
from ingot.custom_ops.shims import c_shims

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    path = ROOT / "custom_ops" / "csrc" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_type() -> None:
    op = parse(
        "mix(Tensor a, Tensor(a!) b, Tensor? c, int d, int? e, float f, float? g, bool h, str i)"
        " -> (Tensor, Tensor)"
    )
    assert op.arguments[1] == Argument("b", "Tensor!")
    assert op.arguments[1].mutated
    assert op.outputs == 2
    assert op_parameters(op) == [
        "const DLTensor* a",
        "DLTensor* b",
        "const DLTensor* c",
        "int64_t d",
        "const int64_t* e",
        "double f",
        "const double* g",
        "int32_t h",
        "const char* i",
        "DLTensor* out0",
        "DLTensor* out1",
    ]
    assert shim_declaration(op) == (
        "AOTITorchError aoti_torch_cpu_mix(AtenTensorHandle a, AtenTensorHandle b, "
        "AtenTensorHandle* c, int64_t d, int64_t* e, double f, double* g, int32_t h, "
        "const char* i, AtenTensorHandle* ret0, AtenTensorHandle* ret1)"
    )


def test_an_op_that_returns_nothing_keeps_a_trailing_handle() -> None:
    op = parse("put(Tensor(a!) x) -> ()")
    assert op_parameters(op) == ["DLTensor* x"]
    assert shim_declaration(op).endswith("(AtenTensorHandle x, AtenTensorHandle* ret0)")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("no arrow(Tensor x)", "not an op schema"),
        ("f(Tensor[] x) -> Tensor", "Tensor\\[\\] x"),
        ("f(int) -> Tensor", "'int'"),
        ("f(Tensor x) -> int", "not an op schema"),
        ("f(Tensor(a!) x) -> (Tensor(a!))", "not an op schema|new tensors"),
        ("f(Tensor x, int n=3) -> Tensor", "n=3"),
    ],
)
def test_what_is_not_understood_is_named(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse(text)


def test_generator_reads_the_declarations_alone(generate: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "op.py").write_text(
        "import a_module_that_does_not_exist\n"
        "declare(schema='zero(Tensor(a!) x) -> ()', doc=None)\n"
        "declare(schema='two(Tensor x, '\n 'int? n) -> (Tensor, Tensor)', doc=None)\n"
    )
    generate.main(tmp_path, tmp_path / "out")
    written = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    files = ["ops.h", "ops_abi.h", "ops_entries.cpp", "ops_shims.cpp"]
    assert sorted(written) == [*(f"cuda_{name}" for name in files), *files]
    assert (
        "void two(const DLTensor* x, const int64_t* n, DLTensor* out0, DLTensor* out1);"
        in (written["ops.h"])
    )
    row = '{"zero", "zero(Tensor(a!) x) -> ()", [](void* const* a) { return ingot_op_zero('
    assert row + "static_cast<DLTensor*>(a[0])); }}" in written["ops_entries.cpp"]
    assert "*ret1 = out1.release();" in written["ops_shims.cpp"]
    assert "(void)ret0;" in written["ops_shims.cpp"]


def test_shims_for_gpus_are_declared_as_the_c_side_defines_them(generate: ModuleType) -> None:
    written = generate.cuda_ops_shims_cpp(generate.declared(ROOT / "custom_ops"))
    defined = re.findall(r"int32_t (aoti_torch_cuda_\w+\(.*?\)) \{", written)
    declared = [text for (text,) in c_shims("cuda").values()]
    assert sorted(f"AOTITorchError {signature}" for signature in defined) == sorted(declared)

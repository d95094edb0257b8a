"""Any module: outputs are what eager PyTorch says, and what does not fit is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

import ingot
from ingot.export import ExportError, export_module
from ingot.export.module import contract_of
from ingot.runtime import BadInput
from tests.conftest import ROOT
from tests.test_cli import ingot as command

BATCH, LENGTH = Dim("batch", min=1, max=64), Dim("length", min=1, max=100)


class Mixed(nn.Module):
    """Linears, attention, a buffer, a constant, a mask; outputs of three shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8, bias=False)
        self.norm = nn.LayerNorm(8)
        self.unused = nn.Linear(3, 3)
        self.register_buffer("shift", torch.randn(8))
        self.constant = torch.randn(8)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, scale=0.7)
        h = self.norm(self.out(attended.transpose(1, 2).flatten(2))) * mask[..., None]
        shifted = h + self.shift * torch.sin(self.constant)
        return shifted, torch.cat([x, x], 1), h.mean(-1).transpose(0, 1)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    module = Mixed().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    output = tmp_path_factory.mktemp("module") / "mixed.pt2"
    args = (torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool))
    shapes = ({0: BATCH, 1: LENGTH}, {0: BATCH, 1: LENGTH})
    export_module(module, args, output, dynamic_shapes=shapes)
    assert isinstance(module.qkv, nn.Linear)  # it is as it was
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    return module, output


@torch.no_grad()
@pytest.mark.parametrize("sizes", [(1, 1), (64, 100), (2, 7)])
def test_outputs_are_those_of_eager(mixed: tuple[nn.Module, Path], sizes: tuple[int, int]) -> None:
    module, path = mixed
    x, mask = torch.randn(*sizes, 8), torch.rand(sizes) > 0.5
    found = ingot.load(path).run(x=x.numpy(), mask=mask.numpy())
    assert list(found) == ["output0", "output1", "output2"]
    for ours, theirs in zip(found.values(), module(x, mask), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-5)


def test_linears_and_attention_are_our_ops(mixed: tuple[nn.Module, Path]) -> None:
    manifest = ingot.load(mixed[1]).manifest
    assert set(manifest["ops"]) == {"linear", "attention"}
    assert manifest["graph"]["symbols"] == {"batch": [1, 64], "length": [1, 100]}
    shapes = [fact["shape"] for fact in manifest["graph"]["outputs"]]
    assert shapes == [["batch", "length", 8], ["batch", "2*length", 8], ["length", "batch"]]


def test_inputs_of_other_kinds(mixed: tuple[nn.Module, Path]) -> None:
    """DLPack, non-contiguous arrays and plain lists give what contiguous arrays give."""
    package = ingot.load(mixed[1])
    x, mask = np.random.default_rng(0).random((2, 3, 8), np.float32), np.ones((2, 3), bool)
    expected = package.run(x=x, mask=mask)["output0"]
    wide = np.zeros((2, 3, 16), np.float32)
    wide[..., ::2] = x
    for given in (torch.from_numpy(x), wide[..., ::2], x.tolist()):
        np.testing.assert_array_equal(package.run(x=given, mask=mask)["output0"], expected)
    results = [package.run(x=x, mask=mask) for _ in range(50)]  # memory is each one's own
    assert all((result["output0"] == expected).all() for result in results)


def test_torch_is_not_imported(mixed: tuple[nn.Module, Path]) -> None:
    program = f"""
import ingot, numpy, sys
package = ingot.load({str(mixed[1])!r})
package.run(x=numpy.ones((1, 2, 8), "float32"), mask=numpy.ones((1, 2), bool))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


ONES, MASK = np.ones((2, 3, 8), np.float32), np.ones((2, 3), bool)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"x": ONES}, "lacks input mask"),
        ({"x": ONES, "mask": MASK, "z": MASK}, "has no input z"),
        ({"x": ONES[..., :7], "mask": MASK}, r"x must be float32 \[batch, length, 8\], but is"),
        ({"x": ONES[0], "mask": MASK}, r"but is float32 \[3, 8\]"),
        ({"x": ONES.astype(float), "mask": MASK}, "x must be float32, but is float64"),
        ({"x": ONES, "mask": MASK[:1]}, "mask must be bool"),
        ({"x": ONES[:0], "mask": MASK[:0]}, "batch is 0 here and may be 1 to 64"),
        ({"x": ONES.repeat(40, 0), "mask": MASK.repeat(40, 0)}, "batch is 80 here and may be 1"),
        ({"x": [[1.0], [2.0, 3.0]], "mask": MASK}, "x is no array"),
        ({"x": "text", "mask": MASK}, "x must be float32"),
    ],
)
def test_what_does_not_fit_is_refused(
    mixed: tuple[nn.Module, Path], inputs: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        ingot.load(mixed[1]).run(**inputs)


def test_the_torch_host_agrees(mixed: tuple[nn.Module, Path]) -> None:
    lean, oracle = ingot.load(mixed[1]), ingot.load(mixed[1], backend="torch")
    x = np.random.default_rng(0).random((2, 3, 8), np.float32)
    theirs = oracle.run(x=x, mask=MASK)
    for name, ours in lean.run(x=x, mask=MASK).items():
        np.testing.assert_allclose(ours, theirs[name], rtol=1e-5, atol=1e-5)
    oracle.close()


class Function(nn.Module):
    """A module that is its function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        return self.function(*args)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32", "uint8", "float64"])
def test_dtypes(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "double.pt2"
    x = torch.arange(12).to(getattr(torch, dtype)).view(3, 4)
    export_module(Function(lambda x: x + x), (x,), path)
    given = x.float().numpy() if dtype == "bfloat16" else x.numpy()
    (found,) = ingot.load(path).run(args_0=given).values()
    np.testing.assert_array_equal(found, (x + x).float().numpy().astype(found.dtype))


def test_an_output_that_is_an_input_is_a_copy(tmp_path: Path) -> None:
    export_module(Function(lambda x: (x, x.t())), (torch.randn(2, 3),), tmp_path / "same.pt2")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    same, transposed = ingot.load(tmp_path / "same.pt2").run(args_0=x).values()
    x[:] = -1
    np.testing.assert_array_equal(same.ravel(), np.arange(6))
    np.testing.assert_array_equal(transposed, same.T)


def test_an_op_without_a_lean_kernel_runs_in_libtorch(tmp_path: Path) -> None:
    path = tmp_path / "mm.pt2"
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    export_module(Function(lambda x: x @ x), (x,), path)
    with pytest.raises(ingot.runtime.BadPackage, match='backend="torch"'):
        ingot.load(path)
    oracle = ingot.load(path, backend="torch")
    (found,) = oracle.run(args_0=x.numpy()).values()
    np.testing.assert_allclose(found, x @ x, rtol=1e-5)
    oracle.close()


def test_an_op_without_any_c_interface_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="linalg_svd"):
        export_module(Function(torch.linalg.svdvals), (torch.randn(4, 4),), tmp_path / "svd.pt2")


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    def branches(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            self.count.add_(1)
            return x + self.count

    for module, sentence in (
        (Function(branches), "cannot be traced"),
        (Counts(), "changes 'count' .buffer mutation."),
        (Function(lambda x: x.add_(1)), "changes 'args_0' .user input mutation."),
        (Function(lambda x: (x, 3)), "only tensors"),
    ):
        with pytest.raises(ExportError, match=sentence):
            contract_of(module, (torch.randn(2),), None, "name")
    with pytest.raises(ExportError, match="no folder"):
        export_module(Mixed(), (), tmp_path / "nowhere" / "a.pt2")


def test_shared_linears_stay_shared() -> None:
    from ingot.export.module import rewrite_linears

    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False), nn.Linear(5, 5))
    module[1].weight = module[0].weight
    rewritten = rewrite_linears(module)
    assert type(rewritten[1]) is nn.Linear
    assert type(rewritten[2]) is not nn.Linear


def test_the_example_of_an_own_op(tmp_path: Path) -> None:
    example = ROOT / "examples" / "own_op"
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run([example / "build", tmp_path], check=True, env=environment)
    library, output = tmp_path / "libown_op.so", tmp_path / "own.pt2"
    source = f"{example / 'own_op.py'}:make"
    found = command("export", source, "-o", output, "--op-library", library)
    assert found.returncode == 0, found.stderr
    library.unlink()  # it travels in the package
    x = np.random.default_rng(0).standard_normal((5, 16), np.float32)
    (ours,) = ingot.load(output).run(x=x).values()
    program = f"""
import sys, numpy, torch
sys.path.insert(0, {str(example)!r})
import own_op
x = torch.from_numpy(numpy.random.default_rng(0).standard_normal((5, 16), numpy.float32))
numpy.save({str(tmp_path / "theirs.npy")!r}, own_op.make()[0](x).detach().numpy())
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    np.testing.assert_allclose(ours, np.load(tmp_path / "theirs.npy"), rtol=1e-5, atol=1e-6)


def test_mistakes_with_sources_and_libraries(tmp_path: Path) -> None:
    own_op = f"{ROOT / 'examples' / 'own_op' / 'own_op.py'}"
    text = tmp_path / "text.so"
    text.write_text("no library")
    output = tmp_path / "a.pt2"
    broken, raising, importing = (
        tmp_path / f"{name}.py" for name in ("broken", "raising", "imports")
    )
    broken.write_text("\ndef make(\n")
    raising.write_text("def make():\n    load()\ndef load():\n    raise ValueError('no weights')\n")
    importing.write_text("import absent\n")
    mistakes: dict[str, tuple[object, ...]] = {
        "C shim aoti_torch_cpu_squared_relu": (f"{own_op}:make",),
        "has no function nothing": (f"{own_op}:nothing",),
        "no file": (f"{tmp_path}/none.py:make",),
        f"{broken} line 2: SyntaxError: '(' was never closed": (f"{broken}:make",),
        f"{raising} line 4: ValueError: no weights;": (f"{raising}:make",),
        f"{importing} line 1: ModuleNotFoundError: No module named 'absent'": (
            f"{importing}:make",
        ),
        "is for a checkpoint": (f"{own_op}:make", "--dtype", "bfloat16"),
        "is for a module": (tmp_path, "--op-library", text),
        "no op library": (f"{own_op}:make", "--op-library", tmp_path / "none.so"),
        "no shared library with a soname": (f"{own_op}:make", "--op-library", text),
    }
    for sentence, arguments in mistakes.items():
        found = command("export", *arguments, "-o", output)
        assert found.returncode == 2, found.stderr
        assert sentence in found.stderr.splitlines()[-1]
        assert not output.exists()


def test_profile_at_a_size(mixed: tuple[nn.Module, Path]) -> None:
    sizes = ("--size", "batch=4", "--size", "length=10")
    result = command("profile", mixed[1], *sizes, "--repeats", 1, "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["request"] == {"sizes": {"batch": 4, "length": 10}}
    assert found["steps"].keys() == {"prefill"}
    (qkv,) = (row["prefill"] for row in found["modules"] if row["name"] == "qkv")
    assert qkv["calls"] == 1
    assert qkv["gflop_s"] * qkv["ms"] * 1e6 == pytest.approx(2 * 40 * 8 * 24)
    small = json.loads(command("profile", mixed[1], "--repeats", 1, "--json").stdout)
    assert small["request"] == {"sizes": {"batch": 1, "length": 1}}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--size", "width=4"), "no size is called width; "),
        (("--size", "batch"), "is no size; write it as T=128"),
        (("--size", "batch=65"), "may be 1 to 64"),
        (("--tokens", "1"), "is of kind module: give --size, not --tokens"),
    ],
)
def test_profile_refuses(
    mixed: tuple[nn.Module, Path], options: tuple[str, ...], sentence: str
) -> None:
    result = command("profile", mixed[1], *options)
    assert result.returncode == 2
    assert sentence in result.stderr


class Shifted(nn.Module):
    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(values))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


@pytest.mark.parametrize("size", [1, 8, 9])
def test_values_that_stand_in_the_code(tmp_path: Path, size: int) -> None:
    """A vector of at most 8 is written into the code, which another module may not be given."""
    for number in range(2):
        path = tmp_path / f"{number}.pt2"
        export_module(Shifted([float(number)] * size), (torch.zeros(size),), path)
        (found,) = ingot.load(path).run(x=np.zeros(size, np.float32)).values()
        assert found.tolist() == [number] * size

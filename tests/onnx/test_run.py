"""ONNX models behind the commands and in Python: as packages, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import ingot
from ingot.profiling.engine import Request
from ingot.profiling.errors import ProfileError
from ingot.runtime import BadInput, BadPackage
from ingot.runtime.base_session import Sampling
from ingot.runtime.engines.onnx import OnnxEngine, node_events
from ingot.runtime.sampling import Sampler
from tests.test_cli import RUN_FIELDS
from tests.test_cli import ingot as command

PROMPT = [1, 7, 42, 100]


@pytest.fixture(scope="module")
def demo(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "demo.onnx"
    found = command("export", demo_checkpoint, "-o", path, "--format", "onnx", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["facts"]["nodes"] > 100
    return path


def tokens(pieces: Any) -> list[int]:
    return [piece.token for piece in pieces if piece.token >= 0]


def test_it_says_what_the_package_says(demo: Path, demo_package: Path) -> None:
    options = ("--prompt", "def fibonacci(n):", "--max-new-tokens", 64, "--ignore-eos", "--json")
    theirs, ours = (json.loads(command("run", p, *options).stdout) for p in (demo_package, demo))
    assert set(ours) == RUN_FIELDS
    for field in ("tokens", "text", "prompt_tokens"):
        assert ours[field] == theirs[field]
    assert len(ours["tokens"]) == 64


def test_it_samples_as_the_package_does(demo: Path, demo_package: Path) -> None:
    package, model = ingot.load(demo_package), ingot.load(demo)
    for how in ({"top_p": 0.9}, {"top_k": 20}, {"top_k": 50, "top_p": 0.5}, {}):
        for seed in (0, 7):
            options = {"temperature": 0.9, "seed": seed, "max_new_tokens": 24, **how}
            assert tokens(model.generate(PROMPT, **options)) == tokens(
                package.generate(PROMPT, **options)
            ), options


def test_sampling_by_hand() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.15, 0.25], np.float32))

    def drawn(**how: Any) -> set[int]:
        made = set()
        for seed in range(60):
            asked = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **how}
            made.add(Sampler(Sampling(1, seed=seed, **asked)).sample(logits))
        return made

    assert drawn(temperature=0.0) == {1}
    assert drawn(top_k=1) == {1}
    assert drawn(top_p=0.4) == {1}
    assert drawn(top_p=0.6) == drawn(top_k=2) == {1, 3}
    assert drawn() == {0, 1, 2, 3}


def test_a_session_goes_on(demo: Path) -> None:
    model = ingot.load(demo)
    with model.session() as session:
        first = tokens(session.generate(PROMPT, max_new_tokens=5, ignore_eos=True))
        assert session.length == len(PROMPT) + 5
        assert session.stats is not None
        assert (session.stats.prompt_tokens, session.stats.new_tokens) == (len(PROMPT), 5)
        logits = session.logits([9, 8])
        session.reset()
        assert session.length == 0
        again = session.logits([*PROMPT, *first, 9, 8])
        np.testing.assert_allclose(logits, again[-2:], atol=1e-4)
        session.reset()
        targets = [*PROMPT, *first][1:]
        scores = session.score([*PROMPT, *first][:-1], targets)
    rows = again[: len(targets)].astype(np.float64)
    expected = rows[range(len(targets)), targets] - np.log(np.exp(rows).sum(-1))
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_stop_ids_stop(demo: Path) -> None:
    model = ingot.load(demo)
    made = tokens(model.generate(PROMPT, max_new_tokens=20, ignore_eos=True))
    stop = made[8]
    stopped = model.generate(PROMPT, max_new_tokens=20, ignore_eos=True, stop_tokens=[stop])
    assert tokens(stopped) == made[: made.index(stop)]


def test_what_a_session_refuses(demo: Path) -> None:
    model = ingot.load(demo)
    session = model.session()
    for call, sentence in {
        lambda: list(session.generate([])): "the prompt is empty",
        lambda: list(session.generate([4096])): "token id 4096 is out of range",
        lambda: list(session.generate([1.5])): "integers of 64 bits",
        lambda: list(session.generate([1], max_new_tokens=10**6)): "the prompt is too long",
        lambda: session.generate([1], temperature=-1): "temperature must not be negative",
        lambda: session.generate([1], temperature=float("nan")): "must not be negative",
        lambda: session.generate([1], top_p=0.0): "top_p must be in",
        lambda: session.generate([1], max_new_tokens="8"): "give numbers",
        lambda: session.score([1], [1, 2]): "2 targets for 1 tokens",
        lambda: model.run(input_ids=[[1]]): "make a session",
        lambda: model.embed("a"): "it makes no embeddings",
    }.items():
        with pytest.raises(BadInput, match=sentence):
            call()
    pieces = session.generate([1], max_new_tokens=9, ignore_eos=True)
    next(pieces)
    with pytest.raises(BadInput, match="the session is busy"):
        session.logits([1])
    session.close()
    assert not tokens(pieces)
    with pytest.raises(BadInput, match="the session is closed"):
        session.logits([1])


def test_files_that_are_not_ours(demo: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    foreign = tmp_path / "foreign.onnx"
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "foreign", [x], [y])
    opsets = [onnx.helper.make_opsetid("", 23)]
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=opsets), foreign)
    lonely = tmp_path / "lonely.onnx"
    shutil.copy(demo, lonely)  # without its weights
    for path, sentence in {
        tmp_path / "none.onnx": "cannot open",
        text: "ONNX Runtime cannot open",
        foreign: "was not made by Ingot",
        lonely: "ONNX Runtime cannot open",
    }.items():
        found = command("run", path, "--tokens", "1")
        assert (found.returncode, found.stdout) == (2, ""), found.stderr
        assert sentence in found.stderr
        assert found.stderr.count("\n") == 1


def test_a_tokenizer_of_another_model(demo: Path, tmp_path: Path) -> None:
    for path in demo.parent.glob("demo.onnx*"):
        shutil.copy(path, tmp_path)
    tokenizer = tmp_path / "demo.onnx.tokenizer.json"
    tokenizer.write_text("{}")
    with pytest.raises(BadPackage, match="is not the one that .* was exported with"):
        ingot.load(tmp_path / "demo.onnx").encode("a")
    tokenizer.unlink()
    with pytest.raises(BadPackage, match=r"cannot read .*demo\.onnx\.tokenizer\.json"):
        ingot.load(tmp_path / "demo.onnx").encode("a")


def test_exports_that_are_refused(demo_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    for sentence, options in {
        "name ends in .onnx": ("-o", tmp_path / "model.pt2"),
        "cache of an ONNX model is float32": ("-o", output, "--kv-dtype", "int8"),
        "--isa is for packages": ("-o", output, "--isa", "x86-64-v3"),
    }.items():
        found = command("export", demo_checkpoint, *options, "--format", "onnx")
        assert found.returncode == 2
        assert sentence in found.stderr
    found = command("export", "a.py:make", "-o", output, "--format", "onnx")
    assert "--format is for a checkpoint" in found.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("library", "arguments"),
    [
        ("onnxruntime", ("run", "{model}", "--tokens", "1")),
        ("onnxscript", ("export", "{checkpoint}", "-o", "{output}", "--format", "onnx")),
    ],
)
def test_missing_libraries_are_named(
    library: str, arguments: tuple[str, ...], demo: Path, demo_checkpoint: Path, tmp_path: Path
) -> None:
    names = {"model": demo, "checkpoint": demo_checkpoint, "output": tmp_path / "model.onnx"}
    words = [argument.format(**names) for argument in arguments]
    program = f"""
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {library!r} else found(name, *rest)
sys.modules[{library!r}] = None
from ingot.cli import main
main({words!r})
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "pip install 'ingot[onnx]'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_full_disk_leaves_nothing(llama: Path, tmp_path: Path) -> None:
    """Files may not grow beyond 64 KB, which is what a full disk looks like."""
    arguments = [str(llama.parent / "checkpoint"), "-o", str(tmp_path / "model.onnx")]
    program = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
from ingot.cli import main
main(["export", "--format", "onnx", *{arguments!r}])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "nothing was left there" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_trace_of_the_engine(demo: Path) -> None:
    engine = OnnxEngine(str(demo))
    request = Request(tuple(PROMPT), 4, threads=1)
    plain, traced = engine.run(request, False), engine.run(request, True)
    package = ingot.load(demo)
    made = package.generate(PROMPT, max_new_tokens=4, ignore_eos=True, temperature=0)
    assert plain.header.result["tokens"] == traced.header.result["tokens"] == tokens(made)
    with package.session() as session:
        logits = session.logits(PROMPT)[-1]
    np.testing.assert_allclose(plain.header.result["logits"], logits, atol=1e-4)
    assert {event.category for event in plain.events} == {"step"}
    assert [step.args["tokens"] for step in traced.steps()] == [4, 1, 1, 1]
    kernels = [event for event in traced.events if event.category == "kernel"]
    assert all(event.module for event in kernels)
    assert {event.args["step"] for event in kernels} == {0, 1, 2, 3}
    ordered = sorted(kernels, key=lambda event: event.start_us)
    for one, other in zip(ordered, ordered[1:], strict=False):
        assert one.thread == other.thread
        assert one.end_us <= other.start_us + 1  # the profiler's whole microseconds
    head = [e for e in kernels if e.module == "lm_head" and e.name == "Gemm"]
    assert [event.args["flops"] for event in head] == [2 * 256 * 4096] * 4
    assert [event.args["read_bytes"] for event in head] == [4 * 256 * (4096 + 1)] * 4


def test_fused_nodes_keep_their_module() -> None:
    from ingot.profiling.steps import sizes, step_event

    about = {
        "op_name": "QuickGelu",
        "input_type_shape": [{"float": [1, 8]}],
        "output_type_shape": [{"float": [1, 8]}],
        "activation_size": "32",
        "parameter_size": "0",
        "output_size": "32",
    }
    name = "model.layers.0.mlp/Mul/QuickGeluFusion/_kernel_time"
    node = {"cat": "Node", "name": name, "ts": 5, "dur": 3, "tid": 1, "args": about}
    step = step_event(0, 100.0, 120.0, sizes(1))
    (event,) = node_events([node, {**node, "ts": 50}, {**node, "cat": "Session"}], 100.0, [step])
    assert (event.name, event.module, event.start_us) == ("QuickGelu", "model.layers.0.mlp", 105.0)
    assert (event.args["read_bytes"], event.args["written_bytes"]) == (32, 32)


def test_the_engine_wants_tokens(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingot.runtime import onnx_backend

    manifest = {"model": {"kind": "image-classifier"}}
    monkeypatch.setattr(onnx_backend, "_manifest", lambda *_: manifest)
    with pytest.raises(ProfileError, match="engines are given token ids"):
        OnnxEngine(str(demo))

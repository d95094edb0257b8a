"""`ingot compare` as a user calls it, and the order in which it runs engines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingot.profiling.engine import Request
from ingot.profiling.errors import ProfileError
from ingot.profiling.readers import read_trace
from ingot.runtime import compare_command
from ingot.runtime.compare_command import KINDS, Kind, Source, record
from tests.conftest import ROOT

TRACES = ROOT / "tests" / "profiling" / "traces"
STORED = (TRACES / "eager.json", TRACES / "ingot.json")
REQUEST = Request((1, 2, 3), 4)


def ingot_compare(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingot", "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Source]:
    """Two engines of made-up times, which write down what they are asked."""
    monkeypatch.chdir(ROOT)  # where `python -m tests...` is found
    monkeypatch.setitem(KINDS, "fake", Kind("tests.profiling.fake_engine"))
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        file.write_text("")
    return [Source(f"fake:{file}", "fake", str(file)) for file in files]


def test_runs_take_turns_and_warm_ups_are_dropped(fakes: list[Source], tmp_path: Path) -> None:
    found = record(fakes, REQUEST, repeats=2)
    order = (tmp_path / "order.txt").read_text().splitlines()
    assert order[:2] == ["one run", "two run"]  # each alone, before the next one starts
    assert order[2:6] == ["one run", "two run"] * 2
    assert order[6:] == ["one traced", "two traced"] * 4
    trace = found[0]
    # A fake's n-th run takes 4 steps of 10 + 10 / n and 4 us: the second and third were counted.
    assert [run["total_ms"] for run in trace.header.runs] == pytest.approx(
        [0.064, 0.004 + 0.04 * (1 + 1 / 3)], rel=1e-9
    )
    assert trace.header.memory["peak_rss_mb"] == 13.0  # of the last untraced run, not a traced one
    # Traced runs 5, 6 and 7 count; they become shorter, so the sixth is the median.
    assert trace.steps()[0].duration_us == pytest.approx(44 + 40 / 6)


def test_an_engines_own_sentence(fakes: list[Source], tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="one failed: token id 999 is out of range"):
        record(fakes, Request((999,), 1), repeats=1)
    broken = tmp_path / "broken"
    with pytest.raises(ProfileError, match="broken cannot be run: it is broken"):
        record([fakes[0], Source("fake:broken", "fake", str(broken))], REQUEST, repeats=1)


def test_live_engines_beside_a_stored_trace(
    fakes: list[Source], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are asked what the trace was; what is saved compares again to the same result."""
    stored = record(fakes[:1], REQUEST, repeats=1)[0]
    stored.header.engine = "before"
    file = tmp_path / "before.json"
    file.write_text(json.dumps(stored.to_chrome()))
    options = {"prompt": None, "tokens": None, "prompt_tokens": None, "output": None}
    options |= {"new_tokens": None, "repeats": 1, "threads": 0, "as_json": True}
    options |= {"verify": False, "key": None}
    kept = tmp_path / "kept"
    kept.mkdir()
    compare_command.run(
        [str(file), fakes[1].text], save_traces=kept, progress=lambda _: None, **options
    )
    first = json.loads(capsys.readouterr().out)
    assert first["request"] == {"tokens": [1, 2, 3], "new_tokens": 4}
    assert first["outputs_agree"] is True
    again = [str(kept / "before.json"), str(kept / "two.json")]
    compare_command.run(again, save_traces=None, progress=lambda _: None, **options)
    second = json.loads(capsys.readouterr().out)
    for engine in (*first["engines"], *second["engines"]):
        del engine["source"]
    assert first == second


def test_stored_traces(tmp_path: Path) -> None:
    expected = json.loads((TRACES / "expected.json").read_text())
    output = tmp_path / "page.html"
    found = ingot_compare(*STORED, "--json", "-o", output, "--save-traces", tmp_path)
    assert found.returncode == 0, found.stderr
    printed = json.loads(found.stdout)
    assert printed["rows"] == expected["rows"]
    assert printed["engines"][1]["agreement"] == expected["engines"][1]["agreement"]
    assert "Comparison: eager, ingot" in output.read_text()
    assert read_trace(tmp_path / "eager.json").events == read_trace(STORED[0]).events
    table = ingot_compare(*STORED)
    assert "model.layers.1.mlp.down_proj" not in table.stdout  # the terminal sums over layers
    assert "model.layers.*.mlp.down_proj" in table.stdout
    assert "The outputs agree." in table.stdout


def test_mistakes_are_one_sentence_and_code_2(tmp_path: Path) -> None:
    text, cut, other = tmp_path / "a.txt", tmp_path / "cut.json", tmp_path / "other.json"
    text.write_text("not a trace")
    cut.write_text(STORED[0].read_text()[:-300])
    other.write_text(STORED[1].read_text().replace('"num_layers": 2', '"num_layers": 3'))
    checkpoint = ROOT / "demo" / "checkpoint"
    cases = {
        "compare needs two sources at least": (STORED[0],),
        "a.txt is not JSON": (STORED[0], text),
        "cut.json is not JSON, or was cut off": (STORED[0], cut),
        "cannot be compared: num layers 2 and 3": (STORED[0], other),
        "there is no file nothing.json": (STORED[0], "nothing.json"),
        "'tensorrt:' is no engine; there are eager:, hf:": (STORED[0], "tensorrt:x"),
        f"is a folder; say what runs it, such as eager:{checkpoint}": (STORED[0], checkpoint),
        "there is no missing; 'eager:missing' needs it": (STORED[0], "eager:missing"),
        "cannot write /dev/full: No space left on device": (*STORED, "-o", "/dev/full"),
        "there is no folder": (*STORED, "-o", tmp_path / "none" / "page.html"),
        "give one of --prompt, --tokens": (
            *(STORED[0], f"eager:{checkpoint}", "--tokens", "1", "--prompt", "a"),
        ),
        "--tokens '1,x' is not a list of ids; write them as 1,2,3": (
            *(STORED[0], f"eager:{checkpoint}", "--tokens", "1,x"),
        ),
    }
    for sentence, arguments in cases.items():
        result = ingot_compare(*arguments)
        assert result.returncode == 2, result
        assert sentence in result.stderr
        assert result.stderr.startswith("ingot: ")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "cut.json", "other.json"}


def test_what_an_engine_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, source, install in (
        ("transformers", "hf:{}", "pip install transformers"),
        ("onnxruntime", "onnx:{}", "pip install 'ingot[onnx]'"),
        ("torch", "compile:{}", "pip install 'ingot[export]'"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            with pytest.raises(ProfileError, match=f"{library} is not installed") as error:
                compare_command.source(source.format(ROOT / "demo" / "checkpoint"))
            assert install in str(error.value)


def test_prompts(demo_checkpoint: Path) -> None:
    live = [compare_command.source(f"eager:{demo_checkpoint}")]
    tokens = compare_command._tokens(live, {}, None, None, 5)
    assert len(tokens) == 5
    assert max(tokens) < 4096
    text = compare_command._tokens(live, {}, "def f(", None, None)
    assert text
    assert text == compare_command._tokens(live, {}, None, ",".join(map(str, text)), None)


def test_eager_beside_a_package(demo_checkpoint: Path, demo_package: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    sources = (f"eager:{demo_checkpoint}", demo_package)
    options = ("--prompt", "def f(", "--new-tokens", 3, "--repeats", 1, "--threads", 1)
    result = ingot_compare(*sources, *options, "--json", "-o", page)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [engine["name"] for engine in found["engines"]] == ["eager", "ingot"]
    assert found["outputs_agree"] is True
    assert found["engines"][1]["agreement"]["tokens_equal"] == 3
    layers = [row["module"] for row in found["layers"]]
    assert {f"model.layers.{i}" for i in range(6)} < set(layers)
    for engine in found["engines"]:
        summed = sum(row[f"{engine['name']}_ms"] for row in found["layers"])
        assert summed == pytest.approx(engine["total_ms"])
        assert engine["matched_share"] > 0.5  # far less than what is found on a quiet machine
        assert engine["untraced"]["runs"] == 1
    rows = {row["module"]: row for row in found["rows"]}
    assert all(rows["model.layers.3.self_attn.qkv_proj"][f"{n}_ms"] > 0 for n in ("eager", "ingot"))
    assert page.stat().st_size > 1_000_000  # plotly.js is in it

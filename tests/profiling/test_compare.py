"""Comparisons of stored traces: exact numbers, sums, what is refused, and the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.profiling import attribution
from ingot.profiling.comparison.agreement import agreement
from ingot.profiling.comparison.compare import compare, engine_names
from ingot.profiling.comparison.page import page
from ingot.profiling.comparison.table import notes
from ingot.profiling.errors import ProfileError
from ingot.profiling.readers import read_trace
from ingot.profiling.trace import Event, Header, Trace
from tests.browser import CHROMIUM, visit

TRACES = Path(__file__).parent / "traces"
STORED = ("eager.json", "ingot.json")


def stored() -> list[Trace]:
    return [read_trace(TRACES / name) for name in STORED]


def test_two_stored_traces_give_exactly_this() -> None:
    found = compare(stored(), STORED)
    assert json.loads(json.dumps(found)) == json.loads((TRACES / "expected.json").read_text())


def test_by_hand() -> None:
    """A few of those numbers, from the events' own."""
    found = compare(stored(), STORED)
    rows = {row["module"]: row for row in found["rows"]}
    # q, k and v are one module: 10 + 6 when reading the prompt, 8 when decoding.
    assert rows["model.layers.0.self_attn.qkv_proj"]["eager_ms"] == 0.024
    # Its gap counts to an event's module: 1031.5 - 1030 before 20.25, then 9.
    assert rows["model.layers.0.mlp.down_proj"]["eager_ms"] == 0.03075
    assert rows["(unmatched): before a step's first event"]["eager_ms"] == 0.006
    assert rows["(unmatched): after a step's last event"]["eager_ms"] == 0.009
    assert rows["(unmatched): events of no module"]["eager_ms"] == 0.004
    assert rows["(unmatched): between steps"]["eager_ms"] == 0.003
    eager, ingot = found["engines"]
    assert eager["total_ms"] == 0.153  # 100 + 3 + 50
    assert eager["matched_share"] == (153 - 22) / 153
    assert ingot["tracing_overhead"] == pytest.approx(0.092 / 0.1)


def sums(rows: list[dict[str, Any]], name: str) -> float:
    return sum(row[f"{name}_ms"] for row in rows)


def test_every_form_adds_up_to_the_totals() -> None:
    found = compare(stored(), STORED)
    nodes = list(found["tree"])
    for engine in found["engines"]:
        name = engine["name"]
        for form in ("rows", "layers", "kinds", "tree"):
            assert sums(found[form], name) == pytest.approx(engine["total_ms"], abs=1e-12)
            by_phase = sum(sums(phase[form], name) for phase in found["phases"].values())
            assert by_phase == pytest.approx(engine["total_ms"], abs=1e-12)
    while nodes:
        node = nodes.pop()
        if node["children"]:
            for name in ("eager", "ingot"):
                assert sums(node["children"], name) == pytest.approx(node[f"{name}_ms"], abs=1e-12)
        nodes += node["children"]


def step(number: int, start: float, duration: float) -> Event:
    return Event("step", "step", start, duration, args={"step": number, "phase": "decode"})


def op(module: str, start: float, duration: float, thread: int = 0) -> Event:
    return Event("op", "op", start, duration, thread, {"module": module})


def test_events_that_overlap_count_once() -> None:
    """On two threads: to the one that began first; what goes beyond the step is cut off."""
    events = [step(0, 0, 10), op("a", 0, 6, 1), op("b", 2, 3, 2), op("c", 4, 9, 1)]
    cut = attribution.slices(Trace(Header(), events), [events[0]], {})
    assert [(piece.path, piece.ns) for piece in cut] == [(("a",), 6000), (("c",), 4000)]


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 30)), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(["", "a", "a.b"]), st.floats(0, 130), st.floats(0, 50))),
)
def test_nothing_is_lost_or_counted_twice(
    steps: list[tuple[float, float]], ops: list[tuple[str, float, float]]
) -> None:
    """Whatever lies where, steps that overlap too."""
    chosen = [step(n, start, length) for n, (start, length) in enumerate(sorted(steps))]
    trace = Trace(Header(), [*chosen, *(op(*facts) for facts in ops)])
    cut = attribution.slices(trace, chosen, {})
    assert all(piece.ns > 0 for piece in cut)
    end = max(round(s.end_us * 1000) for s in chosen)
    assert sum(piece.ns for piece in cut) == end - round(chosen[0].start_us * 1000)


def test_of_several_runs_the_median_is_shown() -> None:
    events = [step(0, 0, 5), step(1, 5, 5), step(0, 20, 3), step(1, 23, 2), step(0, 40, 9)]
    trace = Trace(Header(), events)
    assert [len(run) for run in attribution.runs(trace)] == [2, 2, 1]
    assert [e.start_us for e in attribution.median_run(trace)] == [40]
    assert attribution.median_run(Trace(Header(), [])) == []


def test_module_paths() -> None:
    aliases = {"a.0.q": "a.0.qkv", "bert": "model", "wrap": ""}
    path = attribution.module_path
    assert path("a.0.q", aliases) == ("a", "0", "qkv")
    assert path("a.0.q.inner", aliases) == ("a", "0", "qkv", "inner")
    assert path("a.0.quick", aliases) == ("a", "0", "quick")
    assert path("bert.layer", aliases) == ("model", "layer")
    assert path("wrap.layer", aliases) == ("layer",)
    assert path("", aliases) == ()
    assert attribution.layer(("a", "12", "b", "3")) == ("a", "12")
    assert attribution.kind(("a", "12", "b2", "3")) == "a.*.b2.*"


def test_names_of_engines() -> None:
    one, other = Header(engine="ingot"), Header(engine="eager")
    assert engine_names([one, other], ["x.pt2", "eager:y"]) == ["ingot", "eager"]
    assert engine_names([one, one], ["d/x.pt2", "y.pt2"]) == ["x", "y"]
    assert engine_names([one, one, other], ["a/x", "b/x", "z"]) == ["x #1", "x #2", "eager"]


def header(tokens: list[int] | None, logits: list[float] | None, dtype: str = "float32") -> Header:
    result = {k: v for k, v in (("tokens", tokens), ("logits", logits)) if v is not None}
    return Header(model={"dtype": dtype}, result=result)


def test_agreement() -> None:
    def agrees(one: Header, other: Header) -> Any:
        return agreement(one, other)["agrees"]

    exact = header([1, 2, 3], [1.0, -4.0])
    assert agreement(exact, header([1, 2, 9], [1.0, -4.0004])) == {
        "tokens_equal": 2,
        "tokens": 3,
        "error": pytest.approx(1e-4, rel=1e-3),
        "tolerance": 1e-4,
        "agrees": False,
    }
    assert agrees(exact, header([1, 2, 3], [1.0, -4.0001]))
    assert not agrees(exact, header([1, 2], [1.0, -4.0]))
    # A coarser dtype: the logits decide, tokens may go apart.
    assert agrees(exact, header([1, 2, 9], [1.0, -4.04], "bfloat16"))
    assert not agrees(exact, header([1, 2, 3], [1.0, -5.0], "bfloat16"))
    assert agrees(header([1], None), header([1], None))
    assert agrees(header(None, None), exact) is None
    for strange in ([1.0], [1.0, float("nan")]):
        found = agreement(exact, header([1, 2, 3], strange))
        assert found["error"] is None
        assert found["agrees"] is False
    layouts = {"w4.b64.g128.fp16": 3, "w8.b64.g128.fp16": 1}
    quantised = Header(model={"dtype": "float32", "quantization": {"layouts": layouts}})
    assert agreement(exact, quantised)["tolerance"] == 5e-1
    cached = Header(model={"dtype": "float32", "kv_dtype": "bfloat16"})
    assert agreement(exact, cached)["tolerance"] == 3e-2


REFUSED: dict[str, Callable[[Trace], None]] = {
    "num layers 2 and 3": lambda t: t.header.model.update(num_layers=3),
    "vocab size 8 and 9": lambda t: t.header.model.update(vocab_size=9),
    "prompts of 3 and 2 tokens": lambda t: t.header.request.update(tokens=[1, 2]),
    "prompts of other tokens": lambda t: t.header.request.update(tokens=[1, 2, 4]),
    "new tokens 2 and 5": lambda t: t.header.request.update(new_tokens=5),
    "ingot.json has no steps": lambda t: t.events.clear(),
    "they have no module in common, such as lm_head and other": lambda t: (
        [event.args.update(module="other.thing") for event in t.events] and None
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_match_is_said(sentence: str) -> None:
    first, other = stored()
    REFUSED[sentence](other)
    with pytest.raises(ProfileError, match=sentence):
        compare([first, other], STORED)


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_the_page(tmp_path: Path) -> None:
    """It opens quietly, draws every chart, and its table sorts."""
    path = tmp_path / "page.html"
    path.write_text(page(compare(stored(), STORED)))
    heads = "[...document.querySelectorAll('h2')].map(h => h.textContent).join(', ')"
    open_tabs = "document.querySelectorAll('.buttons button').forEach(b => b.click())"
    drawn = "document.querySelectorAll('.chart .main-svg:first-child').length"
    charts = "document.querySelectorAll('.chart').length"
    sort = """{ const table = [...document.querySelectorAll('.tab:not([hidden]) table')][0];
        table.querySelectorAll('th button')[1].click();
        table.tBodies[0].rows[0].cells[0].textContent }"""
    seen = visit(path, heads, open_tabs, drawn, charts, sort)
    assert seen.messages == []
    assert seen.requests == []
    assert seen.values[0] == (
        "Engines, Time by part, Time by layer, Differences by module, Roofline, Flame chart"
    )
    assert seen.values[2] == seen.values[3] == 3 + 3 + 1 + 2
    assert seen.values[4] == "model"
    assert len(seen.screenshot) > 10_000


def test_a_reader_is_told_that_tracing_slowed() -> None:
    first, other = stored()
    assert notes(compare([first, other], STORED)) == ["The outputs agree."]
    other.header.runs = [{"total_ms": 0.046}]
    other.header.result = {}
    assert notes(compare([first, other], STORED)) == [
        "There are no outputs to compare.",
        "Tracing made ingot take 2.0 times as long: its rows say how its time is divided, its"
        " untraced run how long it takes.",
    ]


def test_names_in_a_trace_are_text() -> None:
    first, other = stored()
    for event in other.events:
        if event.args.get("module") == "lm_head":
            event.args["module"] = "<img src=x>.</script>"
    other.header.engine = "<b>bold</b>"
    text = page(compare([first, other], STORED))
    assert "<img src=x>" not in text
    assert "<b>bold</b>" not in text

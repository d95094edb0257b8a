"""Events of a run joined with the calls of its graph."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ingot.profiling.calls import Call
from ingot.profiling.errors import ProfileError
from ingot.profiling.runs.join import join, layer
from ingot.profiling.trace import Event, Header, Trace

LINEAR, NORM = "aoti_torch_cpu_linear", "graph_0_cpp_fused_mul_0"
DOWN = "model.layers.3.mlp.down_proj"
CALLS = [
    Call(
        LINEAR,
        "op",
        DOWN,
        (DOWN,),
        inputs=({"dtype": "float32", "shape": ["T", 8]},),
        outputs=({"dtype": "float32", "shape": ["T + 1", "num_blocks"]},),
        flops="16*T*T",
        read_bytes="4*context",
        written_bytes="4*num_blocks",
    ),
    Call(NORM, "kernel", "model.norm", ("model.norm", "lm_head")),
]
SIZES = {"tokens": 3, "sequences": 1, "rows": 1, "blocks": 1, "context": 10, "pairs": 27}


def step(start: float, end: float, number: int = 0, thread: int = 7) -> Event:
    args = {"step": number, "phase": "decode", **SIZES}
    return Event("step", "step", start, end - start, thread, args)


def trace(*events: Event) -> Trace:
    return Trace(Header(), list(events))


WHOLE = trace(
    step(100, 200),
    Event("handles", "host", 101, 4, 7),
    Event(LINEAR, "op", 110, 50, 7),
    Event(NORM, "kernel", 162, 8, 7),
    Event("sample", "host", 210, 5, 7),
)


def test_each_event_gets_its_module_and_cost() -> None:
    joined = join(WHOLE, CALLS)
    calls = [event for event in joined.events if event.category in ("op", "kernel")]
    assert [event.args for event in calls] == [
        {
            "call": 0,
            "module": DOWN,
            "layer": 3,
            "step": 0,
            "phase": "decode",
            "inputs": [{"dtype": "float32", "shape": [3, 8]}],
            "outputs": [{"dtype": "float32", "shape": [4, "num_blocks"]}],
            "flops": 144,
            "read_bytes": 40,
        },
        {
            "call": 1,
            "module": "model.norm",
            "modules": ["model.norm", "lm_head"],
            "step": 0,
            "phase": "decode",
            "inputs": [],
            "outputs": [],
            "flops": 0,
            "read_bytes": 0,
            "written_bytes": 0,
        },
    ]


def test_time_between_calls_counts_to_the_later_one() -> None:
    found = [event for event in join(WHOLE, CALLS).events if event.name == "wrapper"]
    assert [(e.start_us, e.duration_us, e.category, e.module) for e in found] == [
        (105, 5, "host", DOWN),
        (160, 2, "host", "model.norm"),
    ]


def test_steps_of_two_threads_do_not_mix() -> None:
    other = [replace(event, thread=8) for event in WHOLE.events]
    joined = join(trace(*WHOLE.events, *other), CALLS)
    assert sum(event.category == "op" for event in joined.events) == 2
    assert {event.thread for event in joined.events if event.name == "wrapper"} == {7, 8}


def test_calls_outside_a_recorded_step_are_left_out() -> None:
    early = Event(NORM, "kernel", 10, 5, 7)
    joined = join(trace(early, *WHOLE.events), CALLS)
    assert [event.start_us for event in joined.events if event.category == "kernel"] == [162]


def test_a_module_brings_sizes_of_its_own() -> None:
    own = Event("step", "step", 0, 10, 1, {"step": 0, "sizes": {"n": 5}})
    call = Call(LINEAR, "op", flops="2*n", read_bytes="T")
    (event,) = (e for e in join(trace(own, Event(LINEAR, "op", 1, 2, 1)), [call]).events[1:])
    assert event.args["flops"] == 10
    assert "read_bytes" not in event.args


@pytest.mark.parametrize(
    ("calls", "sentence"),
    [
        (CALLS[::-1], f"call 0 is {LINEAR}, the package's is {NORM}; give the package that"),
        (CALLS[:1], "it has 2 calls, the package's graph 1"),
        ([*CALLS, CALLS[0]], "it has 2 calls, the package's graph 3"),
    ],
)
def test_another_models_calls_are_refused(calls: list[Call], sentence: str) -> None:
    with pytest.raises(ProfileError, match="step 0 of the trace is not a run of this package") as e:
        join(WHOLE, calls)
    assert sentence in str(e.value)


@pytest.mark.parametrize(
    ("module", "number"),
    [("model.layers.12.mlp", 12), ("blocks.0", 0), ("0", 0), ("lm_head", None), ("conv2.x", None)],
)
def test_layer(module: str, number: int | None) -> None:
    assert layer(module) == number

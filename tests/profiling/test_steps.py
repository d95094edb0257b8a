"""Steps as they happen, and the model's calls in them."""

from __future__ import annotations

from ingot.profiling.steps import Calls, Steps, now_us, sizes
from ingot.profiling.trace import ROOT, Event


def test_the_call_around_its_events() -> None:
    steps, calls = Steps(), Calls()
    seen: list[Event] = []

    def model(tokens: int) -> int:
        start = now_us()
        seen.append(Event("linear", "op", start, now_us() - start, args={"module": "lm_head"}))
        return tokens + 1

    run = calls.timed(model)
    with steps.step(sizes(1)):
        assert run(1) == 2
    (step,) = steps.events
    before, after = calls.around(step, seen)
    assert before.module == after.module == ROOT
    assert step.start_us <= before.start_us <= before.end_us == seen[0].start_us
    assert seen[0].end_us == after.start_us <= after.end_us <= step.end_us
    assert before.args["step"] == 0
    assert list(calls.around(step, [])) == []

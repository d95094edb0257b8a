"""Records: phases sum to the wall clock, and a slow stage is blamed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jsonschema
import pytest

from ingot import process
from ingot.profiling.record import OTHER, UNATTRIBUTED, Event, Record, Recorder, unattributed

PROFILING = Path(__file__).parents[1] / "profiling"
WHOLE = {
    "load checkpoint",
    "capture",
    "decompositions",
    "lowering",
    "scheduling",
    "code generation",
    "header precompilation",
    "C++ compile of model.cpp",
    "C++ compile of kernels.cpp",
    "link",
    "plan weights",
    "write package",
}


def slow_record() -> Record:
    recorder = Recorder("compile")
    with recorder.phase("quick"):
        pass
    with recorder.phase("slow"):
        time.sleep(0.02)
        with recorder.phase("inner"):
            time.sleep(0.03)
    time.sleep(0.02)  # in no phase
    recorder.note("code_bytes", 5)
    return recorder.finish()


def test_phases_sum_to_wall_clock_and_the_rest_is_shown() -> None:
    record = slow_record()
    assert [event.name for event in record.events] == ["quick", "slow", UNATTRIBUTED]
    assert sum(event.duration_s for event in record.events) == pytest.approx(record.wall_s)
    assert max(record.events, key=lambda event: event.duration_s).name == "slow"
    assert unattributed(record) >= 0.02
    slow = record.events[1]
    assert [child.name for child in slow.children] == ["inner", OTHER]
    assert sum(child.duration_s for child in slow.children) == pytest.approx(slow.duration_s)
    assert min(child.duration_s for child in slow.children) >= 0.02


def test_a_phase_that_runs_again_goes_on() -> None:
    recorder = Recorder("compile")
    for _ in range(3):
        with recorder.phase("load"), recorder.phase("read"):
            time.sleep(0.01)
    load, _ = recorder.finish().events
    assert load.name == "load"
    assert load.duration_s >= 0.03
    assert [child.name for child in load.children] == ["read", OTHER]


def test_a_snapshot_has_the_open_phases_up_to_now() -> None:
    recorder = Recorder("compile")
    with recorder.phase("write"), recorder.phase("code"):
        time.sleep(0.02)
        record = recorder.snapshot()
    write, rest = record.events
    assert write.duration_s >= 0.02
    assert write.children[0].duration_s >= 0.02
    assert rest.duration_s < 0.02
    assert {"cpu_s", "peak_rss_mb"} <= write.counters.keys()


def test_what_came_before_is_a_phase() -> None:
    record = Recorder("compile", since=process.now() - 5).finish()
    assert record.events[0].name == "start"
    assert record.wall_s >= record.events[0].duration_s >= 5


def test_what_runs_beside_is_listed_for_itself() -> None:
    recorder = Recorder("compile")
    begun = time.perf_counter()
    with recorder.phase("wait"):
        time.sleep(0.01)
        recorder.beside("g++ model.cpp", begun, cpu_s=7.0)
    record = recorder.finish()
    (event,) = record.beside
    assert (event.name, event.counters) == ("g++ model.cpp", {"cpu_s": 7.0})
    assert event.duration_s >= 0.01
    assert sum(e.duration_s for e in record.events) == pytest.approx(record.wall_s)


def test_an_open_phase_cannot_be_finished() -> None:
    recorder = Recorder("compile")
    with recorder.phase("open"), pytest.raises(RuntimeError, match="'open' is still open"):
        recorder.finish()


def test_progress_hears_of_top_phases_alone() -> None:
    heard: list[str] = []
    recorder = Recorder("compile", on_phase=heard.append)
    with recorder.phase("outer"), recorder.phase("inner"):
        pass
    assert heard == ["outer"]


def test_records_survive_json_and_fit_the_schema() -> None:
    record = slow_record()
    text = json.dumps(record.to_dict())
    assert Record.from_dict(json.loads(text)) == record
    schema = json.loads((PROFILING / "record.schema.json").read_text())
    jsonschema.validate(json.loads(text), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(text), "wall_s": "long"}, schema)


def test_the_example_in_the_repository_is_a_whole_export() -> None:
    schema = json.loads((PROFILING / "record.schema.json").read_text())
    data = json.loads((PROFILING / "example_compile_record.json").read_text())
    jsonschema.validate(data, schema)
    record = Record.from_dict(data)
    assert sum(event.duration_s for event in record.events) == pytest.approx(record.wall_s)
    assert unattributed(record) < 0.03 * record.wall_s
    names = {name for event in record.events for name in (event.name, *parts(event))}
    assert names >= WHOLE


def parts(event: Event) -> set[str]:
    return {child.name for child in event.children}

"""Records: phases sum to the wall clock, and a slow stage is blamed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jsonschema
import pytest

from ingot.profiling.record import UNATTRIBUTED, Record, Recorder, unattributed

PROFILING = Path(__file__).parents[1] / "profiling"


def slow_record() -> Record:
    recorder = Recorder("compile")
    with recorder.phase("quick"):
        pass
    with recorder.phase("slow"):
        time.sleep(0.05)
        recorder.add("inner", 0.03)
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
    assert sum(child.duration_s for child in slow.children) == pytest.approx(slow.duration_s)


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
    assert {"capture", "compile", "write package"} <= {event.name for event in record.events}

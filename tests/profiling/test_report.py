"""`ingot report` of stored records: exact numbers, tables, the page, and what is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ingot.profiling.errors import ProfileError
from ingot.profiling.record import Record
from ingot.profiling.reports.page import page
from ingot.profiling.reports.report import ENTRY, read_record, report
from ingot.profiling.reports.table import tables
from tests.browser import CHROMIUM, visit
from tests.conftest import ROOT
from tests.test_cli import ingot

EXAMPLE = ROOT / "profiling" / "example_compile_record.json"  # the demo model's export


def stored(**changes: Any) -> Record:
    return Record.from_dict({**json.loads(EXAMPLE.read_text()), **changes})


def small() -> dict[str, Any]:
    """A record of 10 s: 4 s of loading, 2 of them quantising, 5 s of waiting for g++."""

    def event(name: str, seconds: float, start: float | None, *children: Any) -> dict[str, Any]:
        counters = {} if start is None else {"cpu_s": seconds / 2, "peak_rss_mb": 100.0}
        return {
            "name": name,
            "duration_s": seconds,
            "start_s": start,
            "counters": counters,
            "children": list(children),
        }

    def call(name: str, kind: str, module: str, *nodes: str) -> dict[str, Any]:
        line = {"name": name, "kind": kind, "module": module, "nodes": nodes}
        return {**line, "modules": [module] if module else [], "sources": ["a.py:1"]}

    return {
        "kind": "compile",
        "started_at": "2026-01-01T00:00:00+00:00",
        "wall_s": 10.0,
        "environment": {"python": "3.11"},
        "facts": {
            "variants": {
                "x86-64-v4": {
                    "cache_hit": False,
                    "cached": {"cpu.h": True},
                    "code_bytes": 1 << 20,
                },
                "x86-64-v3": {"cache_hit": True, "code_bytes": 1 << 19},
            },
            "graph": {"exported_nodes": 7, "lowered_nodes": 5},
            "calls": [
                call("cpp_fused_0", "kernel", "layers.0.norm", "pow", "mean"),
                call("cpp_fused_0", "kernel", "layers.1.norm", "pow_1", "mean_1"),
                call("aoti_torch_cpu_linear", "op", "head", "linear"),
                call("aoti_torch_cpu_mm_out", "fallback", "", "mm"),
            ],
            "memory_plan": {
                "allocations": 2,
                "results": 1,
                "reuses": 1,
                "bytes": "12*T",
                "peak_bytes": "8*T + 4",
                "example": {"T": 512},
            },
            "weight_bytes": 3 << 20,
        },
        "events": [
            event("load", 4.0, 0.0, event("quantise", 2.0, 1.0), event("other", 2.0, None)),
            event("C++", 5.0, 4.0),
            event("unattributed", 1.0, None),
        ],
        "beside": [event("g++ on model.cpp", 6.0, 3.0)],
    }


def test_exact_numbers() -> None:
    found = report(Record.from_dict(small()))
    assert found["unattributed_s"] == 1.0
    assert found["unattributed_share"] == 0.1
    assert [(p["path"], p["share"], p["cpu_s"]) for p in found["phases"]] == [
        (["load"], 0.4, 2.0),
        (["load", "quantise"], 0.2, 1.0),
        (["load", "other"], 0.2, None),
        (["C++"], 0.5, 2.5),
        (["unattributed"], 0.1, None),
    ]
    (compiler,) = found["beside"]
    assert compiler == {"name": "g++ on model.cpp", "start_s": 3.0, "wall_s": 6.0, "cpu_s": 3.0}
    assert found["variants"] == {
        "x86-64-v4": {"cached": {"graph": False, "cpu.h": True}, "code_bytes": 1 << 20},
        "x86-64-v3": {"cached": {"graph": True}, "code_bytes": 1 << 19},
    }
    assert found["graph"] == {
        "exported_nodes": 7,
        "lowered_nodes": 5,
        "kernels": 2,
        "ops": 1,
        "fallbacks": 1,
        "with_module": 0.75,
    }
    (kernel,) = found["kernels"]
    assert kernel["calls"] == kernel["fused_nodes"] == 2
    assert kernel["modules"] == ["layers.*.norm"]
    (fallback,) = found["fallbacks"]
    assert fallback["op"] == "aoti_torch_cpu_mm_out"
    assert (fallback["nodes"], fallback["sources"]) == (["mm"], ["a.py:1"])
    assert found["memory_plan"]["peak_in_example"] == 8 * 512 + 4
    assert json.loads(json.dumps(found)) == found


def test_the_example_adds_up() -> None:
    found = report(stored())
    top = [phase["wall_s"] for phase in found["phases"] if len(phase["path"]) == 1]
    assert sum(top) == pytest.approx(found["wall_s"])
    assert found["unattributed_share"] < 0.03
    assert found["graph"]["with_module"] == 1
    assert sum(kernel["calls"] for kernel in found["kernels"]) == found["graph"]["kernels"]


def test_tables() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        for table in tables(report(Record.from_dict(small()))):
            console.print(table)
    text = capture.get()
    for words in (
        "10.0% unattributed",
        "  quantise",
        "g++ on model.cpp",
        "cpu.h: yes",
        "mm_out",
        "code for x86-64-v3",
    ):
        assert words in text


def test_an_older_record_says_what_it_has() -> None:
    data = small()
    del data["beside"]
    found = report(Record.from_dict({**data, "facts": {"weight_bytes": 1}}))
    assert found["beside"] == found["kernels"] == found["fallbacks"] == []
    assert found["memory_plan"] is None
    assert found["variants"] == {}
    assert len(tables(found)) == 2


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_the_page_opens_without_a_message_or_a_request(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(stored(), "demo.pt2"))
    bars = "document.querySelectorAll('.main-svg').length > 0"
    rows = "document.querySelectorAll('tbody tr').length"
    seen = visit(path, bars, rows)
    assert seen.messages == []
    assert seen.requests == []
    assert seen.values[0]
    assert seen.values[1] > 53 + 20  # calls and phases


def test_a_package_and_a_record_say_the_same(tmp_path: Path) -> None:
    package, record = tmp_path / "model.pt2", tmp_path / "record.json"
    record.write_text(json.dumps(small()))
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr(ENTRY, record.read_text())
    assert read_record(package) == read_record(record)


def test_command(tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    found = ingot("report", EXAMPLE, "--json", "-o", output)
    assert json.loads(found.stdout) == report(stored())
    assert "Compile report" in output.read_text()
    assert "write package" in ingot("report", EXAMPLE).stdout


NOT_RECORDS: dict[str, tuple[Any, str]] = {
    "list": ([], "is no compile record"),
    "trace": ({"traceEvents": []}, "is no compile record"),
    "run": ({**small(), "kind": "run"}, "it is of a run"),
    "lacking": ({k: v for k, v in small().items() if k != "events"}, "is no compile record"),
    "duration": ({**small(), "events": [{"name": "a"}]}, "is no compile record"),
    "calls": ({**small(), "facts": {"calls": [{"surprise": 1}]}}, "is no compile record"),
    "plan": ({**small(), "facts": {"memory_plan": {}}}, "is no compile record"),
}


@pytest.mark.parametrize("name", NOT_RECORDS)
def test_what_is_no_record_is_refused(name: str, tmp_path: Path) -> None:
    data, sentence = NOT_RECORDS[name]
    path = tmp_path / "record.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ProfileError, match=sentence):
        read_record(path)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    package, text, broken = (tmp_path / name for name in ("a.pt2", "b.pt2", "c.json"))
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("model/byteorder", "little")
    text.write_text("no package")
    broken.write_text('{"kind": ')
    for path, sentence in (
        (package, "holds no compile record"),
        (text, "neither a package nor a compile record"),
        (broken, "is not JSON, or was cut off"),
        (tmp_path / "absent.pt2", "cannot read"),
        (tmp_path, "cannot read"),
    ):
        with pytest.raises(ProfileError, match=sentence):
            read_record(path)


def test_the_command_leaves_nothing_half_written(tmp_path: Path) -> None:
    found = ingot("report", EXAMPLE, "-o", tmp_path / "absent" / "report.html")
    assert found.returncode == 2
    assert found.stderr.startswith("ingot: cannot write")
    assert found.stdout == ""
    assert list(tmp_path.iterdir()) == []

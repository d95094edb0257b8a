"""A compile record as a report: where the export's time went, and what became of the graph.

`report` is pure: record in, what `ingot report --json` prints out (docs/report.md). Tables and the
page (report_table.py, report_page.py) are made of that.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ... import json_text
from ..attribution import kind
from ..calls import Call, evaluate
from ..errors import ProfileError
from ..record import OTHER, UNATTRIBUTED, Event, Facts, Record, unattributed
from ..trace import read_json

ENTRY = "model/ingot/report.json"  # where a package has its record


def read_record(path: Path) -> Record:
    """The compile record in a package, or a stored one. Raises ProfileError for anything else."""
    if path.is_file() and zipfile.is_zipfile(path):
        data = entry(path)
        if data is None:
            raise ProfileError(f"{path} holds no compile record; export it again")
    else:
        try:
            data = read_json(path)
        except ProfileError as error:
            if not path.is_file() or path.suffix == ".json":
                raise
            raise ProfileError(
                f"{path} is neither a package nor a compile record (.json)"
            ) from error
    try:
        record = Record.from_dict(data)
        if record.kind != "compile":
            raise ValueError(f"it is of a {record.kind}")
        report(record)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ProfileError(
            f"{path} is no compile record: {error}; give a package, or what `ingot export --json`"
            " printed"
        ) from error
    return record


def entry(path: Path) -> Any:
    """What a package holds as its compile record; None: nothing. Raises ProfileError for what is no
    JSON."""
    try:
        with zipfile.ZipFile(path) as archive:
            if ENTRY not in archive.namelist():
                return None
            if archive.getinfo(ENTRY).compress_type != zipfile.ZIP_STORED:  # it may be any size
                raise ProfileError(f"{path} holds a compressed record; export it again")
            return json_text.parse(archive.read(ENTRY))
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, ProfileError):
            raise
        raise ProfileError(f"{path} cannot be read ({error}); copy the package again") from error


def report(record: Record) -> dict[str, Any]:
    """What `ingot report --json` prints. What a record does not say is None or empty."""
    facts = record.facts
    calls = [Call.from_dict(call) for call in facts.get("calls", [])]
    missed = unattributed(record)
    return {
        "started_at": record.started_at,
        "wall_s": record.wall_s,
        "unattributed_s": missed,
        "unattributed_share": missed / record.wall_s if record.wall_s else 0.0,
        "phases": [_phase(path, event, record) for path, event in _walk(record.events)],
        "beside": [
            {
                "name": event.name,
                "start_s": event.start_s,
                "wall_s": event.duration_s,
                "cpu_s": event.counters.get("cpu_s"),
            }
            for event in sorted(record.beside, key=lambda e: e.start_s or 0.0)
        ],
        "variants": {
            name: {
                "cached": {"graph": own["cache_hit"], **own.get("cached", {})},
                "code_bytes": own["code_bytes"],
            }
            for name, own in facts.get("variants", {}).items()
        },
        "graph": _graph(facts, calls),
        "kernels": _kernels(calls),
        "fallbacks": [
            {"op": c.name, "module": c.module, "nodes": list(c.nodes), "sources": list(c.sources)}
            for c in calls
            if c.kind == "fallback"
        ],
        "memory_plan": _memory_plan(facts.get("memory_plan")),
        "weight_bytes": facts.get("weight_bytes"),
        "environment": record.environment,
    }


def _walk(events: list[Event], inside: tuple[str, ...] = ()) -> Iterator[tuple[list[str], Event]]:
    for event in events:
        yield [*inside, event.name], event
        yield from _walk(event.children, (*inside, event.name))


def _phase(path: list[str], event: Event, record: Record) -> dict[str, Any]:
    """path: the phase's name, after those that it is a part of. cpu_s: of the export's process."""
    known = event.name not in (UNATTRIBUTED, OTHER)
    return {
        "path": path,
        "start_s": event.start_s,
        "wall_s": event.duration_s,
        "share": event.duration_s / record.wall_s if record.wall_s else 0.0,
        "cpu_s": event.counters.get("cpu_s") if known else None,
        "peak_rss_mb": event.counters.get("peak_rss_mb") if known else None,
    }


def _graph(facts: Facts, calls: list[Call]) -> dict[str, Any]:
    """Nodes as they were captured and as they were lowered; calls that a run makes."""
    nodes, kinds = facts.get("graph", {}), Counter(call.kind for call in calls)
    named = sum(bool(call.module) for call in calls)
    return {
        "exported_nodes": nodes.get("exported_nodes"),
        "lowered_nodes": nodes.get("lowered_nodes"),
        "kernels": kinds["kernel"],
        "ops": kinds["op"],
        "fallbacks": kinds["fallback"],
        "with_module": named / len(calls) if calls else None,
    }


def _kernels(calls: list[Call]) -> list[dict[str, Any]]:
    """What was fused: generated kernels, calls of the same code together."""
    same: dict[str, list[Call]] = {}
    for call in calls:
        if call.kind == "kernel":
            same.setdefault(call.name, []).append(call)
    return [
        {
            "name": name,
            "calls": len(found),
            "fused_nodes": len(found[0].nodes),
            "modules": _unique(kind(tuple(m.split("."))) for c in found for m in c.modules),
            "sources": _unique(source for call in found for source in call.sources),
            "nodes": list(found[0].nodes),
        }
        for name, found in same.items()
    ]


def _unique(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _memory_plan(plan: dict[str, Any] | None) -> dict[str, Any] | None:
    """With the bytes that live at once in the example step."""
    if plan is None:
        return None
    return {**plan, "peak_in_example": evaluate(plan["peak_bytes"], plan["example"])}

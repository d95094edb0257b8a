"""A report as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..calls import Call
from ..page import NEUTRAL, PALETTE, Chart, Column, Section, Table, escape, render
from ..record import Record
from .report import report
from .table import graph_facts, missed


def page(record: Record, name: str) -> str:
    """name: of the package. Raises ProfileError where plotly is not installed."""
    found = report(record)
    sections = [
        Section(
            "Phases",
            [_timeline(found), _phases(found)],
            [
                f"{found['wall_s']:.1f} s, of which {missed(found)} are in no phase. A phase's CPU"
                " time is that of the exporting process; memory is the most up to its end. The"
                " compilers, and what else is listed, ran beside the phases, which have what was"
                " waited for of them."
            ],
        ),
        Section("The graph", [_table("what", "is", rows=graph_facts(found))]),
    ]
    if found["kernels"]:
        sections.append(Section("What was fused", [_kernels(found)]))
    if found["fallbacks"]:
        text = "Operators that PyTorch's library runs, and who called them."
        sections.append(Section("Fallbacks", [_fallbacks(found)], [text]))
    if calls := [Call.from_dict(call) for call in record.facts.get("calls", [])]:
        text = (
            "In the order of a run. Costs are formulas of a step's sizes: T new tokens, B"
            " sequences, P blocks in the longest block table, R rows of logits, the context's"
            " tokens, and the (token, token it sees) pairs; or of the module's own sizes."
        )
        sections.append(Section("Calls", [_calls(calls)], [text]))
    return render(f"Compile report: {name}", sections, f"exported {found['started_at']}")


def _timeline(found: Mapping[str, Any]) -> Chart:
    """Phases one below the other, each from where it began first; then what ran beside."""
    phases = [p for p in found["phases"] if p["start_s"] is not None and len(p["path"]) < 3]
    rows = [(" / ".join(p["path"]), p["start_s"], p["wall_s"], "phases") for p in phases]
    rows += [(run["name"], run["start_s"], run["wall_s"], "beside") for run in found["beside"]]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": group,
            "y": [escape(name) for name, *_, of in rows if of == group],
            "base": [start for _, start, _, of in rows if of == group],
            "x": [seconds for *_, seconds, of in rows if of == group],
            "marker": {"color": colour},
            "hovertemplate": "%{y}: %{x:.2f} s<extra></extra>",
        }
        for group, colour in (("phases", PALETTE[0]), ("beside", NEUTRAL))
    ]
    layout = {
        "barmode": "overlay",
        "xaxis": {"title": {"text": "seconds since the start"}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
        "margin": {"l": 220, "r": 20, "t": 10, "b": 50},
    }
    return Chart(data, layout, height=120 + 24 * len(rows))


def _phases(found: Mapping[str, Any]) -> Table:
    rows = [
        {**phase, "name": " / ".join(phase["path"]), "share": 100 * phase["share"]}
        for phase in found["phases"]
    ]
    columns = [
        Column("name", "phase"),
        Column("start_s", "from, s", 2),
        Column("wall_s", "seconds", 2),
        Column("share", "share, %", 1),
        Column("cpu_s", "CPU, s", 2),
        Column("peak_rss_mb", "peak memory, MiB", 0),
    ]
    beside = [{**run, "name": f"beside: {run['name']}"} for run in found["beside"]]
    return Table(columns, [*rows, *beside])


def _kernels(found: Mapping[str, Any]) -> Table:
    rows = [
        {**kernel, **{key: ", ".join(kernel[key]) for key in ("modules", "sources", "nodes")}}
        for kernel in found["kernels"]
    ]
    columns = [
        Column("name", "kernel"),
        Column("calls", "calls", 0),
        Column("fused_nodes", "fused nodes", 0),
        Column("modules", "modules"),
        Column("sources", "sources"),
        Column("nodes", "nodes of the first call"),
    ]
    return Table(columns, rows)


def _fallbacks(found: Mapping[str, Any]) -> Table:
    rows = [(c["op"], c["module"], ", ".join(c["sources"])) for c in found["fallbacks"]]
    return _table("op", "module", "sources", rows=rows)


def _calls(calls: Sequence[Call]) -> Table:
    rows = [
        {
            "number": number,
            "name": call.name,
            "kind": call.kind,
            "module": call.module,
            "also": ", ".join(m for m in call.modules if m != call.module),
            "sources": ", ".join(call.sources),
            "flops": call.flops,
            "read": call.read_bytes,
            "written": call.written_bytes,
        }
        for number, call in enumerate(calls)
    ]
    columns = [
        Column("number", "call", 0),
        Column("name", "name"),
        Column("kind", "kind"),
        Column("module", "module"),
        Column("also", "serves also"),
        Column("sources", "sources"),
        Column("flops", "FLOP"),
        Column("read", "bytes read"),
        Column("written", "bytes written"),
    ]
    return Table(columns, rows)


def _table(*titles: str, rows: Sequence[Sequence[str]]) -> Table:
    """Of text, without controls."""
    columns = [Column(title, title) for title in titles]
    return Table(columns, [dict(zip(titles, row, strict=True)) for row in rows], controls=False)

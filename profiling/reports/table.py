"""A report as tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


def tables(report: dict[str, Any]) -> list[RenderableType]:
    """`report`: what `report.report` gives. Phases; what ran beside; the graph; kernels."""
    parts = [phases(report), *beside(report), facts(report)]
    return [*parts, *kernels(report), *fallbacks(report)]


def phases(report: dict[str, Any]) -> Table:
    wall = report["wall_s"]
    table = Table(title=f"compile record: {wall:.1f} s, {missed(report)} unattributed")
    table.add_column("phase")
    for title in ("seconds", "share", "CPU s", "peak MiB"):
        table.add_column(title, justify="right")
    for phase in report["phases"]:
        table.add_row(
            Text("  " * (len(phase["path"]) - 1) + phase["path"][-1]),
            f"{phase['wall_s']:.2f}",
            f"{phase['share']:.1%}",
            number(phase["cpu_s"], 2),
            number(phase["peak_rss_mb"], 0),
            style="" if len(phase["path"]) == 1 else "dim",
        )
    return table


def missed(report: dict[str, Any]) -> str:
    return f"{report['unattributed_share']:.1%}"


def beside(report: dict[str, Any]) -> list[Table]:
    if not report["beside"]:
        return []
    table = Table(title="beside the phases, which have what was waited for")
    table.add_column("what")
    for title in ("from s", "seconds", "CPU s"):
        table.add_column(title, justify="right")
    for run in report["beside"]:
        values = (number(run[key], 2) for key in ("start_s", "wall_s", "cpu_s"))
        table.add_row(Text(run["name"]), *values)
    return [table]


def facts(report: dict[str, Any]) -> Table:
    table = Table(show_header=False, title="the graph")
    for label, value in graph_facts(report):
        table.add_row(label, Text(value))
    return table


def graph_facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known of the graph and of what was made of it, as text."""
    graph, plan = report["graph"], report["memory_plan"]
    rows = {
        "nodes captured": number(graph["exported_nodes"], 0),
        "nodes lowered": number(graph["lowered_nodes"], 0),
        "kernels a run": number(graph["kernels"], 0),
        "op calls a run": number(graph["ops"], 0),
        "fallbacks": number(graph["fallbacks"], 0),
        "calls with a module": "" if not graph["with_module"] else f"{graph['with_module']:.0%}",
        "weights": _size(report["weight_bytes"]),
    }
    for name, variant in report["variants"].items():
        rows[f"code for {name}"] = _size(variant["code_bytes"])
        rows[f"{name} from caches"] = _cached(variant["cached"])
    if plan is not None:
        step = ", ".join(f"{letter}={size}" for letter, size in plan["example"].items())
        rows |= {
            "buffers a run": f"{plan['allocations']} allocated, {plan['results']} made by ops,"
            f" {plan['reuses']} in another's memory",
            "bytes allocated": plan["bytes"],
            "most at once": f"{plan['peak_bytes']} = {_size(plan['peak_in_example'])} of {step}",
        }
    return [(label, value) for label, value in rows.items() if value]


def _cached(cached: dict[str, bool | None]) -> str:
    said = {True: "yes", False: "no"}
    return ", ".join(f"{name}: {said[hit]}" for name, hit in cached.items() if hit is not None)


def kernels(report: dict[str, Any]) -> list[Table]:
    if not report["kernels"]:
        return []
    table = Table(title="what was fused: generated kernels")
    table.add_column("calls", justify="right")
    table.add_column("nodes", justify="right")
    for title in ("modules", "sources"):
        table.add_column(title, overflow="fold")
    for kernel in report["kernels"]:
        numbers = (str(kernel["calls"]), str(kernel["fused_nodes"]))
        table.add_row(*numbers, *(Text("\n".join(kernel[k])) for k in ("modules", "sources")))
    return [table]


def fallbacks(report: dict[str, Any]) -> list[Table]:
    if not report["fallbacks"]:
        return []
    table = Table(title="fallbacks: operators that PyTorch's library runs")
    for title in ("op", "module", "sources"):
        table.add_column(title, overflow="fold")
    for call in report["fallbacks"]:
        table.add_row(*map(Text, (call["op"], call["module"], "\n".join(call["sources"]))))
    return [table]


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _size(value: float | None) -> str:
    return "" if value is None else f"{value / 2**20:,.2f} MiB"

"""A comparison as tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..attribution import UNMATCHED
from ..reports.table import number

_SLOWED = 1.25  # times as long, from which on a reader is told


def tables(result: dict[str, Any]) -> list[RenderableType]:
    """Engines; time by layer; time by kind of module. `result`: what `compare` gives."""
    names = [engine["name"] for engine in result["engines"]]
    return [
        _engines(result["engines"]),
        _times(names, result["layers"], result["engines"], "time by layer, ms of the traced run"),
        _times(names, result["kinds"], result["engines"], "the same by kind of module"),
        *map(Text, notes(result)),
    ]


def notes(result: dict[str, Any]) -> list[str]:
    """What a reader must know beside the numbers."""
    found = [_verdict(result["outputs_agree"])]
    for engine in result["engines"]:
        times = engine["tracing_overhead"] or 0
        if times > _SLOWED:
            found.append(
                f"Tracing made {engine['name']} take {times:.1f} times as long: its rows say how"
                " its time is divided, its untraced run how long it takes."
            )
    return found


def _verdict(agree: bool | None) -> str:
    said = {True: "The outputs agree.", False: "The outputs DO NOT agree."}
    return said[agree] if agree is not None else "There are no outputs to compare."


def _engines(engines: list[dict[str, Any]]) -> Table:
    """Transposed: an engine a column, so that four fit a terminal."""
    table = Table("", title="engines")
    for engine in engines:
        table.add_column(Text(engine["name"]), justify="right")
    for label, values in engine_facts(engines):
        table.add_row(label, *values)
    return table


def engine_facts(engines: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """What is known of each engine, as text: a line's label and a value for each engine."""
    untraced = [e["untraced"]["total_ms"] or {} for e in engines]
    first = untraced[0].get("median")
    rows = {
        "untraced run, ms": [number(u.get("median"), 1) for u in untraced],
        "quartiles, ms": [f"{u['q1']:,.1f} to {u['q3']:,.1f}" if u else "" for u in untraced],
        f"ratio to {engines[0]['name']}": [
            number(u["median"] / first, 3) if u and first else "" for u in untraced
        ],
        "prefill, ms": [_median(e, "prefill_ms") for e in engines],
        "decode, ms": [_median(e, "decode_ms") for e in engines],
        "traced run, ms": [number(e["total_ms"], 1) for e in engines],
        "traced / untraced": [number(e["tracing_overhead"], 2) for e in engines],
        "matched to a module": [f"{e['matched_share']:.1%}" for e in engines],
        "aligned with all": [f"{e['aligned_share']:.1%}" for e in engines],
        "loading, ms": [number(e["start_up"].get("load_ms"), 0) for e in engines],
        "first token after, ms": [number(e["start_up"].get("first_token_ms"), 0) for e in engines],
        "peak memory, MiB": [number(e["memory"].get("peak_rss_mb"), 0) for e in engines],
        "tokens equal": [_tokens(e["agreement"]) for e in engines],
        "largest error": [_error(e["agreement"]) for e in engines],
        "tolerance": [_tolerance(e["agreement"]) for e in engines],
    }
    return [(label, values) for label, values in rows.items() if any(values)]


def _median(engine: dict[str, Any], key: str) -> str:
    return number((engine["untraced"][key] or {}).get("median") or None, 1)


def _tokens(found: dict[str, Any] | None) -> str:
    if found is None or found["tokens"] is None:
        return ""
    return f"{found['tokens_equal']} of {found['tokens']}"


def _error(found: dict[str, Any] | None) -> str:
    if found is None or (found["error"] is None and found["agrees"] is not False):
        return ""
    return "not a number" if found["error"] is None else f"{found['error']:.1e}"


def _tolerance(found: dict[str, Any] | None) -> str:
    return f"{found['tolerance']:.0e}" if _error(found) and found else ""


def _times(
    names: list[str], rows: list[dict[str, Any]], engines: list[dict[str, Any]], title: str
) -> Table:
    table = Table(title=title, show_footer=True)
    table.add_column("module", footer="total", overflow="fold")
    for name, engine in zip(names, engines, strict=True):
        table.add_column(Text(name), justify="right", footer=number(engine["total_ms"], 2))
    for name in names[1:]:
        table.add_column(Text(f"{name} / {names[0]}"), justify="right")
    for row in rows:
        times = [number(row[f"{name}_ms"], 2) for name in names]
        ratios = [number(row[f"{name}_ratio"], 2) for name in names[1:]]
        style = "dim" if row["module"].startswith(UNMATCHED) else ""
        table.add_row(Text(label(row["module"], rows)), *times, *ratios, style=style)
    return table


def label(module: str, rows: list[dict[str, Any]]) -> str:
    """A row's name; where others are of what is inside it, it has its own time alone."""
    inside = any(row["module"].startswith(f"{module}.") for row in rows)
    return f"{module} (itself)" if inside else module

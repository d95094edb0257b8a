"""A comparison as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..page import Column, Section, Table, Tabs, render
from . import charts
from .table import engine_facts, notes


def page(result: dict[str, Any]) -> str:
    """`result`: what `compare` gives. Raises ProfileError where plotly is not installed."""
    names = [engine["name"] for engine in result["engines"]]
    forms = {"all": result, **result["phases"]}
    colour = charts.colours(result, names)
    sections = [
        Section("Engines", [_engines(result["engines"])], notes(result)),
        Section(
            "Time by part",
            [Tabs({phase: charts.totals(form, names, colour) for phase, form in forms.items()})],
            ["One traced run of each engine: the one whose length is the median."],
        ),
        Section(
            "Time by layer",
            [Tabs({phase: charts.by_layer(form, names, colour) for phase, form in forms.items()})],
            [
                "All engines have one scale."
                if charts.shared_scale(result, names)
                else "Mind the scales: the engines are too far apart to share one."
            ],
        ),
        Section(
            "Differences by module",
            [Tabs({phase: _differences(form, names) for phase, form in forms.items()})],
            [
                f"Times of the traced runs, in ms, with all that is inside a module. Ratios and"
                f" differences are to {names[0]}. A click on a column's head sorts by it."
            ],
        ),
    ]
    if roofline := charts.roofline(result):
        text = "Events that say their work, summed by kind of module and phase."
        sections.append(Section("Roofline", [roofline], [text]))
    flames = Tabs({name: charts.flame(result, name, colour) for name in names})
    text = "A block is as wide as the time of its module. A click on one enlarges it."
    sections.append(Section("Flame chart", [flames], [text]))
    return render(f"Comparison: {', '.join(names)}", sections, _subtitle(result))


def _subtitle(result: dict[str, Any]) -> str:
    model, request = result["model"], result["request"]
    facts = [str(model.get("name") or model.get("architecture") or "model not named")]
    if "tokens" in request:
        new = request.get("new_tokens", 0)
        facts.append(f"prompt of {len(request['tokens'])} tokens, {new} generated")
    return "; ".join(facts)


def _engines(engines: list[dict[str, Any]]) -> Table:
    """An engine a column, as in the terminal."""
    names = [engine["name"] for engine in engines]
    facts = [("source", [engine["source"] for engine in engines]), *engine_facts(engines)]
    rows = [{"": label, **dict(zip(names, values, strict=True))} for label, values in facts]
    return Table([Column("", ""), *(Column(name, name) for name in names)], rows, controls=False)


def _differences(form: dict[str, Any], names: list[str]) -> Table:
    columns = [Column("module", "module")]
    columns += [Column(f"{name}_ms", f"{name}, ms", 3) for name in names]
    for name in names[1:]:
        columns.append(Column(f"{name}_ratio", f"{name} / {names[0]}", 2))
        columns.append(Column(f"{name}_difference_ms", f"{name} - {names[0]}, ms", 3))
    return Table(columns, list(_walk(form["tree"])))


def _walk(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        yield node
        yield from _walk(node["children"])

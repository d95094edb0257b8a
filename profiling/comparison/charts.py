"""A comparison as plotly figures.

A form is what `compare` gives, or one of its `phases`. A part is what a bar's colour says:
`self_attn` or `mlp` of a layer, or a module outside the layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..attribution import UNMATCHED, layer
from ..page import NEUTRAL, PALETTE, Chart, escape

Form = Mapping[str, Any]
_OTHER = "other modules"
_ITSELF = "the layer itself"
_ROOT = "(all)"
_STRUCTURE = "#c8c8c8"  # of a block that only holds others
_ALIKE = 8.0  # times as long, up to which engines share an axis


def colours(result: Form, names: Sequence[str]) -> dict[str, str]:
    """Of each part, the same in all charts: the longest have one of their own."""
    sums: dict[str, float] = {}
    for row in result["rows"]:
        longest = max(row[f"{name}_ms"] / (_total(result, name) or 1) for name in names)
        sums[_part(row)] = sums.get(_part(row), 0.0) + longest
    unmatched = sums.pop(UNMATCHED, None)
    ranked = sorted(sums, key=lambda part: -sums[part])
    kept = ranked if len(ranked) <= len(PALETTE) else ranked[: len(PALETTE) - 1]
    shown = [*(part for part in sums if part in kept), *([_OTHER] if kept != ranked else [])]
    found = dict(zip(shown, PALETTE, strict=False))
    return found | ({UNMATCHED: NEUTRAL} if unmatched is not None else {})


def totals(form: Form, names: Sequence[str], colour: Mapping[str, str]) -> Chart:
    """A bar for each engine, stacked by part."""
    data = []
    for part, fill in colour.items():
        values = [
            sum(r[f"{name}_ms"] for r in form["rows"] if _shown(r, colour) == part)
            for name in names
        ]
        if any(values):
            data.append(_bar(part, fill, values, list(map(escape, names)), "h"))
    ends = [
        {"x": _total(form, name), "y": escape(name), "text": f" {_total(form, name):,.1f} ms"}
        for name in names
    ]
    labels = {"showarrow": False, "xanchor": "left"}
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "time of the traced run, ms"}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "annotations": [{**end, **labels} for end in ends],
        "legend": _LEGEND,
        "margin": {"l": 60, "r": 90, "t": 10, "b": 50},
    }
    return Chart(data, layout, height=150 + 44 * len(names) + _legend_height(data))


def by_layer(form: Form, names: Sequence[str], colour: Mapping[str, str]) -> Chart:
    """For each engine a row of bars, one a layer, stacked by part. Alike engines share a scale."""
    columns = _columns(form["rows"])
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"barmode": "stack", "legend": _LEGEND}
    gap = 0.12 / len(names) if len(names) > 1 else 0
    height = (1 - gap * (len(names) - 1)) / len(names)
    sums = {name: _column_sums(form["rows"], columns, name) for name in names}
    highest = [max(values, default=0.0) for values in sums.values()]
    shared = max(highest) <= _ALIKE * min(highest)
    for index, name in enumerate(names):
        axis = str(index + 1) if index else ""
        top = 1 - index * (height + gap)
        layout[f"yaxis{axis}"] = {
            "domain": [max(top - height, 0), top],
            "title": {"text": f"<b>{escape(name)}</b><br>ms"},
            **({"range": [0, max(highest) * 1.05]} if shared else {"rangemode": "tozero"}),
        }
        for part, fill in colour.items():
            values = [
                sum(r[f"{name}_ms"] for r in rows if _shown(r, colour) == part)
                for rows in columns.values()
            ]
            if any(values):
                bar = _bar(part, fill, list(map(escape, columns)), values, "v")
                first = all(other["name"] != bar["name"] for other in data)
                data.append({**bar, "yaxis": f"y{axis}", "showlegend": first})
    layout["xaxis"] = {"anchor": f"y{len(names)}" if len(names) > 1 else "y", "type": "category"}
    layout["xaxis"] |= {"categoryorder": "array", "categoryarray": list(map(escape, columns))}
    layout["xaxis"] |= {"title": {"text": "layer, or module outside the layers", "standoff": 12}}
    layout["xaxis"] |= {"tickangle": -45}
    layout["margin"] = {"l": 80, "r": 20, "t": 10, "b": 90}
    return Chart(data, layout, height=130 + 150 * len(names) + _legend_height(data))


def roofline(result: Form) -> Chart | None:
    """Work a second against work a byte, for each kind of module; None where no trace says."""
    points = result["roofline"]
    if not points:
        return None
    data: list[dict[str, Any]] = []
    for index, engine in enumerate(result["engines"]):
        for phase, symbol in _SYMBOLS.items():
            mine = [p for p in points if p["engine"] == engine["name"] and p["phase"] == phase]
            if mine:
                label = escape(f"{engine['name']}, {phase}" if phase else engine["name"])
                data.append(_scatter(label, mine, PALETTE[index % len(PALETTE)], symbol))
    data += _roofs(result["engines"], [p["flops"] / p["bytes"] for p in points])
    log = {"type": "log", "dtick": "D2"}
    layout = {
        "xaxis": {**log, "title": {"text": "arithmetic intensity, FLOP a byte"}},
        "yaxis": {**log, "title": {"text": "achieved, GFLOP/s"}},
        "legend": {"orientation": "v"},
        "margin": {"l": 70, "r": 20, "t": 10, "b": 60},
    }
    return Chart(data, layout, height=480)


_SYMBOLS = {"prefill": "circle", "decode": "diamond-open", "": "square"}
_LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "traceorder": "normal"}


def _scatter(label: str, points: list[Form], colour: str, symbol: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": label,
        "x": [p["flops"] / p["bytes"] for p in points],
        "y": [p["flops"] / p["ms"] / 1e6 for p in points],
        "text": [
            f"{escape(p['module'])}<br>{p['bytes'] / p['ms'] / 1e6:.1f} GB/s, {p['ms']:.2f} ms"
            for p in points
        ],
        "hovertemplate": "%{text}<br>%{y:.1f} GFLOP/s at %{x:.2f} FLOP a byte<extra>"
        + label
        + "</extra>",
        "marker": {"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1.5}},
    }


def _roofs(engines: list[Form], intensities: list[float]) -> Iterator[dict[str, Any]]:
    """What memory and arithmetic allow: the highest ceilings that were measured."""
    found = [engine["ceilings"] for engine in engines]
    read = max((c["read_gb_s"] for c in found if "read_gb_s" in c), default=None)
    peak = max((c["gflop_s"] for c in found if "gflop_s" in c), default=None)
    low, high = min(intensities) / 2, max(intensities) * 2
    if peak and read:
        high = max(high, peak / read * 2)
    line = {"type": "scatter", "mode": "lines", "hoverinfo": "skip"}
    style = {"color": NEUTRAL, "dash": "dash"}
    if read:
        end = min(high, peak / read) if peak else high
        memory = {"x": [low, end], "y": [low * read, end * read], "line": style}
        yield {**line, **memory, "name": f"memory, {read:.1f} GB/s"}
    if peak:
        begin = max(low, peak / read) if read else low
        arithmetic = {"x": [begin, high], "y": [peak, peak], "line": {**style, "dash": "dot"}}
        yield {**line, **arithmetic, "name": f"arithmetic, {peak:,.0f} GFLOP/s"}


def flame(form: Form, name: str, colour: Mapping[str, str]) -> Chart:
    """One engine's time as an icicle of modules: a block is as wide as its time."""
    blocks = [{"id": _ROOT, "label": escape(name), "parent": "", "value": 0.0, "fill": _STRUCTURE}]

    def add(node: Form, parent: str) -> None:
        module, inside = node["module"], node["children"]
        if not node[f"{name}_ms"]:
            return
        above = not module.startswith(UNMATCHED) and layer(_path(node)) == _path(node) and inside
        blocks.append(
            {
                "id": module,
                "label": escape(module.removeprefix(parent).lstrip(".: ")),
                "parent": parent,
                "value": 0.0 if inside else node[f"{name}_ms"],  # the children's add up to it
                "fill": _STRUCTURE if above else colour[_shown(node, colour)],
            }
        )
        for child in inside:
            add(child, module)

    for top in form["tree"]:
        add(top, _ROOT)
    columns = {key: [block[key] for block in blocks] for key in blocks[0]}
    share = f"%{{percentRoot:.1%}} of {_total(form, name):,.1f} ms"
    icicle = {
        "type": "icicle",
        "ids": columns["id"],
        "labels": columns["label"],
        "parents": columns["parent"],
        "values": columns["value"],
        "marker": {"colors": columns["fill"], "line": {"width": 1, "color": NEUTRAL}},
        "leaf": {"opacity": 1},
        "tiling": {"orientation": "v"},
        "sort": False,
        "hovertemplate": f"%{{id}}<br>%{{value:.2f}} ms, {share}<extra></extra>",
        "textfont": {"size": 11},
    }
    layout = {
        "margin": {"l": 0, "r": 0, "t": 30, "b": 0},
        "uniformtext": {"minsize": 8, "mode": "hide"},
    }
    return Chart([icicle], layout, height=380)


def shared_scale(form: Form, names: Sequence[str]) -> bool:
    """Whether `by_layer` draws all engines on one scale."""
    columns = _columns(form["rows"])
    highest = [max(_column_sums(form["rows"], columns, n), default=0.0) for n in names]
    return max(highest) <= _ALIKE * min(highest)


def _columns(rows: list[Form]) -> dict[str, list[Form]]:
    """Rows by the layer they are in, or the module; a layer is called by its number if it can."""
    grouped: dict[tuple[str, ...], list[Form]] = {}
    for row in rows:
        path = (UNMATCHED,) if row["module"].startswith(UNMATCHED) else _path(row)
        grouped.setdefault(layer(path), []).append(row)
    stacks = {path[:-1] for path in grouped if path[-1].isdecimal()}

    def label(path: tuple[str, ...]) -> str:
        if path[-1].isdecimal():
            return path[-1] if len(stacks) == 1 else ".".join(path[-3:])
        return path[-1]

    labels = [label(path) for path in grouped]
    named = [
        text if labels.count(text) == 1 else ".".join(path)
        for text, path in zip(labels, grouped, strict=True)
    ]
    return dict(zip(named, grouped.values(), strict=True))


def _column_sums(rows: list[Form], columns: Mapping[str, list[Form]], name: str) -> list[float]:
    return [sum(r[f"{name}_ms"] for r in columns[c]) for c in columns]


def _path(row: Form) -> tuple[str, ...]:
    return tuple(row["module"].removesuffix(" (itself)").split("."))


def _part(row: Form) -> str:
    if row["module"].startswith(UNMATCHED):
        return UNMATCHED
    path = _path(row)
    outer = layer(path)
    if not outer[-1].isdecimal():
        return path[-1]
    return path[len(outer)] if len(path) > len(outer) else _ITSELF


def _shown(row: Form, colour: Mapping[str, str]) -> str:
    part = _part(row)
    return part if part in colour else _OTHER


def _total(form: Form, name: str) -> float:
    return float(sum(row[f"{name}_ms"] for row in form["rows"]))


def _bar(
    part: str, fill: str, x: Sequence[Any], y: Sequence[Any], orientation: str
) -> dict[str, Any]:
    value, where = ("%{x:.2f}", "%{y}") if orientation == "h" else ("%{y:.2f}", "%{x}")
    return {
        "type": "bar",
        "name": escape(part),
        "x": x,
        "y": y,
        "orientation": orientation,
        "marker": {"color": fill},
        "hovertemplate": f"{escape(part)}: {value} ms<extra>{where}</extra>",
        "legendgroup": part,
    }


def _legend_height(data: Sequence[Form]) -> int:
    """Room for rows of about eight names above the bars."""
    return 24 * -(-len({bar["name"] for bar in data}) // 8)

"""Traces of one model and one request, compared module by module: traces in, plain data out.

docs/compare.md defines each number. The terminal's tables and the HTML page are made of what
`compare` gives, and that is what `ingot compare --json` prints.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

from .. import attribution
from ..errors import ProfileError
from ..trace import ROOT, Event, Header, Trace
from . import agreement, tree

FORMAT_VERSION = 1


def compare(traces: Sequence[Trace], sources: Sequence[str]) -> dict[str, Any]:
    """The comparison; the first trace is what the others are held against.

    sources: where each came from, for names. Raises ProfileError for traces that cannot be
    compared, saying what does not match.
    """
    headers = [trace.header for trace in traces]
    names = engine_names(headers, sources)
    agreement.check_alike(names, headers)
    aliases = {a: b for header in reversed(headers) for a, b in header.aliases.items()}
    steps = [attribution.median_run(trace) for trace in traces]
    for source, chosen in zip(sources, steps, strict=True):
        if not chosen:
            raise ProfileError(f"{source} has no steps, so nothing to compare; record it again")
    cut = [
        attribution.slices(trace, chosen, aliases)
        for trace, chosen in zip(traces, steps, strict=True)
    ]
    whole = tree.tree(cut)
    _check_modules(names, whole)
    phases = set.intersection(*({piece.phase for piece in pieces} for pieces in cut))
    agreements = [agreement.agreement(headers[0], header) for header in headers[1:]]
    said = [found["agrees"] for found in agreements if found["agrees"] is not None]
    return {
        "format_version": FORMAT_VERSION,
        "model": headers[0].model,
        "request": next((h.request for h in headers if h.request), {}),
        "engines": [
            _engine(index, names, sources, traces, whole, agreements)
            for index in range(len(traces))
        ],
        "outputs_agree": all(said) if said else None,
        **_forms(names, whole),
        "phases": {
            phase: _forms(names, tree.tree([[p for p in c if p.phase == phase] for c in cut]))
            for phase in ("prefill", "decode")
            if phase in phases
        },
        "roofline": [
            {"engine": name, **point}
            for name, trace, chosen in zip(names, traces, steps, strict=True)
            for point in _roofline(trace, chosen, aliases)
        ],
    }


def engine_names(headers: Sequence[Header], sources: Sequence[str]) -> list[str]:
    """Each trace's engine; of several with the same, the source's stem; then numbered."""
    names = [header.engine for header in headers]
    stems = [PurePath(source.partition(":")[2] or source).stem for source in sources]
    chosen = [
        stem if names.count(name) > 1 else name for name, stem in zip(names, stems, strict=True)
    ]
    return [
        f"{name} #{chosen[: index + 1].count(name)}" if chosen.count(name) > 1 else name
        for index, name in enumerate(chosen)
    ]


def _check_modules(names: Sequence[str], whole: tree.Node) -> None:
    seen = [{kind for kind, times in tree.kinds(whole) if times[i]} for i in range(len(names))]
    parts = [
        {p for k in kinds if attribution.UNMATCHED not in k and k != ROOT for p in _above(k)}
        for kinds in seen
    ]
    for name, others in zip(names[1:], parts[1:], strict=True):
        if parts[0] and others and not parts[0] & others:
            raise ProfileError(
                f"{names[0]} and {name} cannot be compared: they have no module in common, such as"
                f" {min(parts[0])} and {min(others)}. Give runs of one model"
            )


def _above(kind: str) -> Iterable[str]:
    """The kind and all that it is inside of."""
    parts = kind.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _engine(
    index: int,
    names: Sequence[str],
    sources: Sequence[str],
    traces: Sequence[Trace],
    whole: tree.Node,
    agreements: list[dict[str, Any]],
) -> dict[str, Any]:
    header, total = traces[index].header, whole.total[index]
    untraced = {key: _spread([r[key] for r in header.runs if key in r]) for key in _RUN}
    median = (untraced["total_ms"] or {}).get("median")
    return {
        "name": names[index],
        "engine": header.engine,
        "source": sources[index],
        "model": header.model,
        "total_ms": _ms(total),
        "matched_share": tree.matched(whole)[index] / total if total else 0.0,
        "aligned_share": tree.aligned(whole)[index] / total if total else 0.0,
        "untraced": {"runs": len(header.runs), **untraced},
        "tracing_overhead": _ms(total) / median if median else None,
        "start_up": header.start_up,
        "memory": header.memory,
        "ceilings": header.ceilings,
        "environment": header.environment,
        "agreement": agreements[index - 1] if index else None,
    }


_RUN = ("total_ms", "prefill_ms", "decode_ms")


def _spread(values: list[float]) -> dict[str, float] | None:
    """Median and quartiles."""
    if not values:
        return None
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return {"median": middle, "q1": low, "q3": high}


def _forms(names: Sequence[str], root: tree.Node) -> dict[str, Any]:
    """One tree's time in three forms; each adds up to the engines' totals."""
    return {
        "rows": [_row(names, attribution.text(p), t) for p, t in tree.flat(root)],
        "layers": [_row(names, attribution.text(p), t) for p, t in tree.layers(root)],
        "kinds": [_row(names, k, t) for k, t in tree.kinds(root)],
        "tree": [_node(names, child) for child in root.children.values()],
    }


def _node(names: Sequence[str], node: tree.Node) -> dict[str, Any]:
    """A module and what is inside it, its own time as a child of that name."""
    children = [_node(names, child) for child in node.children.values()]
    if children and any(node.own):
        own = _row(names, f"{attribution.text(node.path)} (itself)", node.own)
        children.insert(0, {**own, "children": []})
    return {**_row(names, attribution.text(node.path), node.total), "children": children}


def _row(names: Sequence[str], module: str, times: tree.Times) -> dict[str, Any]:
    """Milliseconds of each engine; ratio and difference of each but the first to the first."""
    row: dict[str, Any] = {"module": module}
    row |= {f"{name}_ms": _ms(ns) for name, ns in zip(names, times, strict=True)}
    for name, ns in zip(names[1:], times[1:], strict=True):
        row[f"{name}_ratio"] = ns / times[0] if times[0] else None
        row[f"{name}_difference_ms"] = _ms(ns - times[0])
    return row


def _ms(ns: int) -> float:
    return ns / 1e6


def _roofline(
    trace: Trace, steps: list[Event], aliases: dict[str, str]
) -> Iterable[dict[str, Any]]:
    """For each kind of module and phase: the work of its events that say theirs, and their time."""
    sums: dict[tuple[str, str], list[float]] = {}
    start, end = steps[0].start_us, steps[-1].end_us
    for event in trace.events:
        args = event.args
        if not start <= event.start_us < end or "flops" not in args or event.category == "step":
            continue
        path = attribution.module_path(event.module, aliases)
        key = (attribution.kind(path) if path else attribution.NAMELESS, str(args.get("phase", "")))
        moved = args.get("read_bytes", 0) + args.get("written_bytes", 0)
        found = sums.setdefault(key, [0.0, 0.0, 0.0])
        sums[key] = [
            a + b
            for a, b in zip(found, (args["flops"], moved, event.duration_us / 1e3), strict=True)
        ]
    for (module, phase), (flops, moved, ms) in sums.items():
        if flops and moved and ms:
            yield {"module": module, "phase": phase, "flops": flops, "bytes": moved, "ms": ms}

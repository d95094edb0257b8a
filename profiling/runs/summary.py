"""What a joined trace says in numbers: time by module, op, kernel and layer, steps, coverage.

All times of decode are of one step on average, those of prefill of the whole prompt; the rows of
each table sum to the phase's wall clock. Achieved rates are over a row's own time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..calls import own_name
from ..trace import Event, Trace
from .coverage import PHASES, Piece, coverage, pieces
from .join import CALLS, WRAPPER

UNNAMED = "(unnamed)"


@dataclass
class Totals:
    """A row's sums over a phase."""

    calls: int = 0
    us: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    predicted_us: float = 0.0
    compute_us: float = 0.0  # of the predicted, what arithmetic bounds

    def add(self, piece: Piece) -> None:
        self.us += piece.us
        if piece.event is not None and piece.event.category in CALLS:
            args = piece.event.args
            self.calls += 1
            self.flops += args.get("flops", 0)
            self.bytes += args.get("read_bytes", 0) + args.get("written_bytes", 0)
            self.predicted_us += args.get("predicted_us", 0.0)
            self.compute_us += args.get("predicted_us", 0.0) * (args.get("bound") == "compute")


def summarise(trace: Trace) -> dict[str, Any]:
    """Of a trace that `join` gave, with or without `predicted`; one JSON object."""
    return {
        "steps": steps(trace),
        "coverage": {phase: coverage(trace, phase).to_dict() for phase in PHASES},
        "modules": sorted(table(trace, module_kind), key=_slowest, reverse=True),
        "ops": sorted(table(trace, _op), key=_slowest, reverse=True),
        "kernels": sorted(table(trace, _kernel), key=_slowest, reverse=True),
        "layers": sorted(table(trace, _layer), key=lambda row: row["name"].startswith("(")),
    }


def table(trace: Trace, key: Callable[[Event], str]) -> list[dict[str, Any]]:
    """A row for each name that `key` gives events: {"name", "prefill": {...}, "decode": {...}}, in
    the order of a run."""
    rows: dict[str, dict[str, Any]] = {}
    for phase in PHASES:
        totals: dict[str, Totals] = {}
        for piece in pieces(trace, phase):
            name = key(piece.event) if piece.event else UNNAMED
            totals.setdefault(name, Totals()).add(piece)
        wall = sum(row.us for row in totals.values())
        number = _count(trace, phase)
        for name, row in totals.items():
            facts = _facts(row, wall, number, trace.header.ceilings)
            rows.setdefault(name, {"name": name})[phase] = facts
    return list(rows.values())


def steps(trace: Trace) -> dict[str, Any]:
    """Of each phase how many steps, and their milliseconds."""
    found = {}
    for phase in PHASES:
        times = [s.duration_us / 1e3 for s in trace.steps() if s.args.get("phase") == phase]
        if times:
            shares = {f"p{q}_ms": percentile(times, q) for q in (50, 90, 99)}
            found[phase] = {"count": len(times), "total_ms": sum(times), **shares}
    return found


def percentile(values: list[float], q: float) -> float:
    """Linear between the two nearest ranks."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def module_kind(event: Event) -> str:
    """The module with its numbers as "*", alike in all layers; "(host) sample" for none."""
    if event.module:
        return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", event.module)
    return f"({event.name})" if event.name == WRAPPER else f"({event.category}) {event.name}"


def _op(event: Event) -> str:
    """An op by its own name; kernels of generated code are one."""
    if event.category == "kernel":
        return "generated code"
    if event.category == "op":
        return own_name(event.name)
    return f"({event.name})" if event.name == WRAPPER else f"(host) {event.name}"


def _kernel(event: Event) -> str:
    return event.name if event.category in CALLS else _op(event)


def _layer(event: Event) -> str:
    found = re.search(r"^(.*?\.)?\d+(?=\.|$)", event.module)
    if found:
        return found[0]
    return event.module or "(host)"


def _count(trace: Trace, phase: str) -> int:
    """What a phase's times are divided by."""
    steps = sum(step.args.get("phase") == phase for step in trace.steps())
    return max(steps, 1) if phase == "decode" else 1


def _facts(row: Totals, wall: float, number: int, ceilings: Mapping[str, float]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "ms": row.us / 1e3 / number,
        "share": row.us / wall if wall else 0.0,
        "calls": row.calls / number,
    }
    if row.bytes or row.flops:
        facts["gb_s"] = row.bytes / row.us / 1e3
        facts["gflop_s"] = row.flops / row.us / 1e3
        for rate, ceiling in (("gb_s", "read_gb_s"), ("gflop_s", "gflop_s")):
            if ceilings.get(ceiling):
                facts[f"{rate}_share"] = facts[rate] / ceilings[ceiling]
    if row.predicted_us:
        facts["predicted_ms"] = row.predicted_us / 1e3 / number
        facts["bound"] = "compute" if 2 * row.compute_us > row.predicted_us else "memory"
    return facts


def _slowest(row: Mapping[str, Any]) -> list[float]:
    """By decode if there is any."""
    return [row.get(phase, {}).get("ms", 0.0) for phase in ("decode", "prefill")]

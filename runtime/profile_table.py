"""The report of `ingot profile` in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_KERNELS = 15  # of the slowest; all are in the JSON
_GAPS = 5
_PHASES = {"decode": "ms a step", "prefill": "ms"}


def show(result: Mapping[str, Any]) -> None:
    console = Console(markup=False, highlight=False)
    phases = [phase for phase in _PHASES if phase in result["steps"]]
    tables = {
        "modules": "time by module; layers together",
        "ops": "time by op",
        "kernels": f"time by kernel; the {_KERNELS} slowest",
        "layers": "time by layer",
    }
    for name, title in tables.items():
        rows = result[name][:_KERNELS] if name == "kernels" else result[name]
        console.print(_table(title, name.removesuffix("s"), rows, phases))
    console.print(_steps(result))
    for line in [*_coverage(result), *_machine(result)]:
        console.print(line, soft_wrap=True)


def _table(
    title: str, first: str, rows: Sequence[Mapping[str, Any]], phases: Sequence[str]
) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, overflow="fold", ratio=1)
    predicted = any("predicted_ms" in row.get(phase, {}) for row in rows for phase in phases)
    for phase in phases:
        table.add_column(f"{phase}\n{_PHASES[phase]}", justify="right")
        table.add_column("\nshare", justify="right")
        if predicted:
            table.add_column("\npredicted", justify="right")
        table.add_column("\nGB/s", justify="right")
        table.add_column("\nGFLOP/s", justify="right")
    for row in rows:
        cells: list[str] = []
        for phase in phases:
            cells += _cells(row.get(phase, {}), predicted)
        table.add_row(row["name"], *cells)
    return table


def _cells(facts: Mapping[str, Any], predicted: bool) -> list[str]:
    def number(name: str, form: str) -> str:
        return format(facts[name], form) if name in facts else ""

    cells = [number("ms", ".3f"), number("share", ".1%")]
    if predicted:
        bound = facts.get("bound", " ")[0]  # m or c
        cells.append(f"{number('predicted_ms', '.3f')} {bound}".strip())
    return [*cells, number("gb_s", ".1f"), number("gflop_s", ".1f")]


def _steps(result: Mapping[str, Any]) -> Table:
    table = Table("steps", title="steps of the graph, ms", title_justify="left")
    for name in ("number", "in all", "p50", "p90", "p99"):
        table.add_column(name, justify="right")
    for phase, facts in result["steps"].items():
        times = (facts[name] for name in ("total_ms", "p50_ms", "p90_ms", "p99_ms"))
        table.add_row(phase, str(facts["count"]), *(f"{ms:.3f}" for ms in times))
    return table


def _coverage(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for phase, found in result["coverage"].items():
        if not found["wall_ms"]:
            continue
        shares = {
            name: found[f"{name}_ms"] / found["wall_ms"]
            for name in ("calls", "wrapper", "host", "unnamed")
        }
        lines.append(
            f"{phase}: {found['share']:.2%} of {found['wall_ms']:.3f} ms has a name: calls"
            f" {shares['calls']:.2%}, generated code between them {shares['wrapper']:.2%}, host"
            f" {shares['host']:.2%}; unnamed {shares['unnamed']:.2%}"
        )
        lines += [
            f"    {gap['ms'] / found['wall_ms']:.2%} in {gap['count']} between {gap['after']} and"
            f" {gap['before']}"
            for gap in found["gaps"][:_GAPS]
        ]
    return lines


def _machine(result: Mapping[str, Any]) -> list[str]:
    lines = []
    if ceilings := result["ceilings"]:
        lines.append(
            f"ceilings, measured in this run: read {ceilings['read_gb_s']:.1f} GB/s, float32"
            f" {ceilings['gflop_s']:.0f} GFLOP/s. predicted: the roofline over what each kernel"
            " reaches here, bound by memory (m) or arithmetic (c)"
        )
    if medians := result["untraced"]:
        overhead = ", ".join(f"{p} {v:+.1%}" for p, v in result["tracing_overhead"].items())
        lines.append(
            f"untraced: prefill {medians['prefill_ms']:.2f} ms, decode {medians['decode_ms']:.2f}"
            f" ms{'; the traced run beside it: ' + overhead if overhead else ''}"
        )
    return lines

"""The report of `ingot profile` in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from ..profiling.terminal import console

_LEAST = 0.002  # of a phase's time: what takes less is one row; the JSON has all
_KERNELS = 12
_GAPS = 5
_UNITS = {"decode": "ms a step", "prefill": "ms"}

Rows = Sequence[Mapping[str, Any]]


def show(result: Mapping[str, Any]) -> None:
    terminal = console(markup=False, highlight=False)
    phases = [phase for phase in _UNITS if phase in result["steps"]]
    for phase in phases:
        terminal.print(_modules(result["modules"], phase))
    for name, rows in (("op", result["ops"]), ("kernel", result["kernels"][:_KERNELS])):
        terminal.print(_times(name, rows, phases))
    terminal.print(_times("layer", result["layers"], phases))
    terminal.print(_steps(result))
    for line in [*_coverage(result), *_machine(result)]:
        terminal.print(line, soft_wrap=True)


def _new_table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _modules(rows: Rows, phase: str) -> Table:
    """What the modules of all layers take together, beside what the machine could."""
    rows = _largest(rows, phase)
    predicted = ["predicted"] if any("predicted_ms" in row[phase] for row in rows) else []
    columns = (_UNITS[phase], "share", *predicted, "GB/s", "GFLOP/s")
    table = _new_table(f"{phase}, by module", "module", *columns)
    for row in rows:
        facts = row[phase]
        cells = [_number(facts, "ms", ".3f"), _number(facts, "share", ".1%")]
        if predicted:
            bound = str(facts.get("bound", " "))[0]  # m or c
            cells.append(f"{_number(facts, 'predicted_ms', '.3f')} {bound}".strip())
        rates = (_number(facts, "gb_s", ".1f"), _number(facts, "gflop_s", ".1f"))
        table.add_row(row["name"], *cells, *rates)
    return table


def _largest(rows: Rows, phase: str) -> Rows:
    """The phase's rows, the largest first, the small ones as one."""
    known = sorted((r for r in rows if phase in r), key=lambda r: -r[phase]["ms"])
    large = [row for row in known if row[phase]["share"] >= _LEAST]
    small = known[len(large) :]
    if len(small) < 2:
        return known
    total = {field: sum(row[phase][field] for row in small) for field in ("ms", "share")}
    return [*large, {"name": f"({len(small)} smaller)", phase: total}]


def _times(name: str, rows: Rows, phases: Sequence[str]) -> Table:
    columns = [column for phase in phases for column in (f"{phase}, {_UNITS[phase]}", "share")]
    table = _new_table(f"by {name}", name, *columns)
    for row in rows:
        facts = [row.get(phase, {}) for phase in phases]
        if any(fact.get("share", 0) >= _LEAST for fact in facts):
            cells = [(_number(f, "ms", ".3f"), _number(f, "share", ".1%")) for f in facts]
            table.add_row(
                row["name"].removeprefix("graph_0_"), *(c for pair in cells for c in pair)
            )
    return table


def _number(facts: Mapping[str, Any], name: str, form: str) -> str:
    return format(facts[name], form) if name in facts else ""


def _steps(result: Mapping[str, Any]) -> Table:
    table = _new_table("steps of the graph, ms", "phase", "steps", "in all", "p50", "p90", "p99")
    for phase, facts in result["steps"].items():
        times = (facts[name] for name in ("total_ms", "p50_ms", "p90_ms", "p99_ms"))
        table.add_row(phase, str(facts["count"]), *(f"{ms:.3f}" for ms in times))
    return table


def _coverage(result: Mapping[str, Any]) -> Iterator[str]:
    for phase, found in result["coverage"].items():
        if wall := found["wall_ms"]:
            parts = {part: found[f"{part}_ms"] / wall for part in ("calls", "wrapper", "host")}
            yield (
                f"{phase}: {found['share']:.2%} of {wall:.3f} ms has a name: calls"
                f" {parts['calls']:.2%}, generated code between them {parts['wrapper']:.2%}, host"
                f" {parts['host']:.2%}. Without one:"
            )
            for gap in found["gaps"][:_GAPS]:
                where = f"between {gap['after']} and {gap['before']}"
                yield f"    {gap['ms'] / wall:.2%} in {gap['count']} gaps {where}"


def _machine(result: Mapping[str, Any]) -> Iterator[str]:
    if ceilings := result["ceilings"]:
        yield (
            f"ceilings, measured in this run: read {ceilings['read_gb_s']:.1f} GB/s, float32"
            f" {ceilings['gflop_s']:.0f} GFLOP/s. predicted: the roofline over what each kernel"
            " reaches here, bound by memory (m) or arithmetic (c)"
        )
    if medians := result["untraced"]:
        overhead = ", ".join(f"{p} {v:+.1%}" for p, v in result["tracing_overhead"].items())
        yield (
            f"untraced: prefill {medians['prefill_ms']:.2f} ms, decode {medians['decode_ms']:.2f}"
            f" ms{'; the traced run beside it: ' + overhead if overhead else ''}"
        )

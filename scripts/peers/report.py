"""A record of bench_peers.py to Markdown: pure functions.

A record has "machine", "run" and "rows"; a row has engine, precision, kind, head, version, file_mb,
status ("ok" or why not) and "samples", one for each round (measure.turn).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from .engines import CLASSES, ENGINES

Record = dict[str, Any]
Row = dict[str, Any]

# Field of a sample, heading, decimals, and whether more is better.
COLUMNS = (
    ("prefill_tok_s", "prefill 512 tok/s", 0, True),
    ("decode_long_tok_s", "decode after 512", 1, True),
    ("decode_short_tok_s", "decode after 32", 1, True),
    ("cold_ms", "cold first token ms", 0, False),
    ("peak_rss_mb", "peak RSS MB", 0, False),
)


def median(row: Row, field: str) -> float:
    if field == "file_mb":
        return float(row["file_mb"])
    return statistics.median(sample[field] for sample in row["samples"])


def measured(record: Record) -> list[Row]:
    return [row for row in record["rows"] if row["status"] == "ok" and row["samples"]]


def markdown(record: Record) -> str:
    models = f"{record['run']['model']}, batch 1, greedy"
    top = heading("Beside other engines", models, record)
    parts = [top, table(record), ratios(record), notes(record)]
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(title: str, models: str, record: Record) -> str:
    machine, run = record["machine"], record["run"]
    changed = ", with changes that are not committed" if run["dirty"] else ""
    return (
        f"# {title}, {run['date']}\n\n"
        f"{models}. {machine['cpu']}, {machine['cores']} cores,"
        f" {run['threads']} threads, {machine['memory_gb']:.0f} GB, {machine['system']}; commit"
        f" {run['commit']}{changed}. `{run['command']}`"
    )


def table(record: Record) -> str:
    """One line for each setting: medians, with least and most over the rounds."""
    titles = ["engine", "precision", "head", *(c[1] for c in COLUMNS), "file MB"]
    lines = [line(titles), rule(titles)]
    for row in record["rows"]:
        cells = [ENGINES[row["engine"]].title, row["precision"], row["head"] or "-"]
        if row["status"] == "ok" and row["samples"]:
            cells += [spread(row, field, digits) for field, _, digits, _ in COLUMNS]
            cells.append(f"{row['file_mb']:.0f}")
        else:
            cells += [row["status"], *["-"] * len(COLUMNS)]
        lines.append(line(cells))
    return "\n".join(lines)


def ratios(record: Record) -> str:
    """How many times better Ingot is than the best other engine of the class; below 1 is worse."""
    rows = measured(record)
    columns = [(field, title, more) for field, title, _, more in COLUMNS]
    columns.append(("file_mb", "file", False))
    lines = []
    for kind in CLASSES:
        others = [r for r in rows if r["kind"] == kind and r["engine"] != "ingot"]
        for ours in (r for r in rows if r["kind"] == kind and r["engine"] == "ingot"):
            if others:
                cells = [against_best(ours, others, f, more, engine_name) for f, _, more in columns]
                lines.append(line([ours["precision"], *cells]))
    if not lines:
        return ""
    head = ["Ingot", *(title.removesuffix(" tok/s") for _, title, _ in columns)]
    return (
        "Ingot beside the best other engine of its class: how many times faster, sooner or smaller;"
        " below 1 it is behind. Times are medians of the rounds' own ratios.\n\n"
        + "\n".join([line(head), rule(head), *lines])
    )


def notes(record: Record) -> str:
    run = record["run"]
    versions = {
        ENGINES[row["engine"]].title: row["version"] for row in record["rows"] if row["version"]
    }
    in_cpp = [e.title for name, e in ENGINES.items() if e.native or name == "ingot"]
    lines = [
        f"- Medians of {run['rounds']} round(s), least and most in brackets; each round goes"
        " through all settings, each in fresh processes. Only ratios within one run mean anything.",
        f"- Prefill is a prompt's first token; decode is {run['new_tokens'] - 1} more. Every prompt"
        " is new; each engine has its own defaults but for the number of threads.",
        "- Cold is process start to first token, a prompt of 32, files in the page cache:"
        f" {' and '.join(in_cpp)} are C++ programs there, the others Python.",
        "- Peak RSS is that of the warm process, mapped file pages included; Ingot's has Python in"
        " it. MB are 10^6 bytes; a file that is a folder counts whole.",
        *load_note(record),
    ]
    if versions:
        lines.append(f"- {'; '.join(f'{name} {v}' for name, v in versions.items())}.")
    return "\n".join(lines)


def engine_name(row: Row) -> str:
    return ENGINES[row["engine"]].title


def load_note(record: Record) -> list[str]:
    """What else the machine did meanwhile, where anything was measured."""
    shares = [sample["other_cpu"] for row in measured(record) for sample in row["samples"]]
    if not shares:
        return []
    return [
        f"- Other processes and tenants took {statistics.median(shares):.0%} of the CPU in the"
        f" median, {max(shares):.0%} at most."
    ]


def against_best(
    ours: Row, others: list[Row], field: str, more: bool, name: Callable[[Row], str]
) -> str:
    """The median of the rounds' ratios to the best of the others; above 1 ours is better."""
    best = (max if more else min)(others, key=lambda row: median(row, field))
    if field == "file_mb":
        pairs = [(ours["file_mb"], best["file_mb"])]
    else:
        theirs = {sample["round"]: sample[field] for sample in best["samples"]}
        pairs = [(s[field], theirs[s["round"]]) for s in ours["samples"] if s["round"] in theirs]
    if not pairs:
        return "-"
    ratio = statistics.median(a / b if more else b / a for a, b in pairs)
    return f"{ratio:.2f} ({name(best)} {best['precision']})"


def spread(row: Row, field: str, digits: int) -> str:
    values = [sample[field] for sample in row["samples"]]
    text = f"{statistics.median(values):.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):.{digits}f}-{max(values):.{digits}f})"
    return text


def rule(titles: list[str]) -> str:
    return line(["---"] * len(titles))


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"

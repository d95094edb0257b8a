"""A record of bench_encoders.py to Markdown: pure functions."""

from __future__ import annotations

from ..report import Record, Row, against_best, heading, line, load_note, measured, rule, spread
from .settings import BATCHES, CLASSES, ENGINES, NETWORKS

# Field of a sample, heading, decimals.
COLUMNS = tuple((f"batch_{batch}_ms", f"batch {batch}, ms", 2) for batch in BATCHES)


def name(row: Row) -> str:
    return ENGINES[row["engine"]].title


def markdown(record: Record) -> str:
    parts = [heading("Encoders beside other engines", "Random weights", record)]
    for network, title in NETWORKS.items():
        rows = [row for row in record["rows"] if row["network"] == network]
        if rows:
            parts += [f"## {title}", table(rows), ratios(rows)]
    parts.append(notes(record))
    return "\n\n".join(part for part in parts if part) + "\n"


def table(rows: list[Row]) -> str:
    """Medians, with least and most over the rounds."""
    titles = ["engine", "precision", *(title for _, title, _ in COLUMNS), "cosine"]
    lines = [line(titles), rule(titles)]
    for row in rows:
        cells = [name(row), row["precision"]]
        if row["status"] == "ok" and row["samples"]:
            cells += [spread(row, field, digits) for field, _, digits in COLUMNS]
            cells.append(f"{min(sample['cosine'] for sample in row['samples']):.6f}")
        else:
            cells += [row["status"], *["-"] * len(COLUMNS)]
        lines.append(line(cells))
    return "\n".join(lines)


def ratios(rows: list[Row]) -> str:
    """How many times faster Ingot is than the best other engine of the class."""
    lines = []
    for kind in CLASSES:
        ran = [r for r in rows if r["kind"] == kind and r["status"] == "ok" and r["samples"]]
        others = [row for row in ran if row["engine"] != "ingot"]
        for ours in (row for row in ran if row["engine"] == "ingot"):
            if others:
                cells = [against_best(ours, others, f, False, name) for f, _, _ in COLUMNS]
                lines.append(line([ours["precision"], *cells]))
    if not lines:
        return ""
    titles = ["Ingot", *(f"batch {batch}" for batch in BATCHES)]
    return "\n".join([line(titles), rule(titles), *lines])


def notes(record: Record) -> str:
    run, rows = record["run"], measured(record)
    versions = {name(row): row["samples"][0]["version"] for row in rows}
    lines = [
        f"- Medians over {run['rounds']} round(s), least and most in brackets, of the median call"
        " of a process; each round goes through all settings, each in a fresh process that calls"
        f" for {run['seconds']:g} s a batch. torch.compile, which compiles in each process,"
        " takes part in every fourth round. Only ratios within one run mean anything.",
        "- The second table of each network is Ingot beside the best other engine of its class: how"
        " many times faster; below 1 it is behind. Medians of the rounds' own ratios.",
        "- Arrays in, arrays out, through Python: token ids to hidden states without padding,"
        " pixels to logits. Cosine is that of the output and eager torch's in float32, the least of"
        " all batches and rounds.",
        "- int8: Ingot's weights with activations in 8 bits, ONNX Runtime's dynamic quantisation,"
        " NNCF's for OpenVINO, calibrated on one batch; the rest of a network is in float32, but in"
        " bfloat16 by OpenVINO.",
        *load_note(record),
    ]
    if versions:
        lines.append(f"- {'; '.join(f'{title} {v}' for title, v in versions.items())}.")
    return "\n".join(lines)

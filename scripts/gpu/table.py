"""The suite's table, from the rows that its parts write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_NUMBERS = (
    ("us", "us", "{:.1f}"),
    ("gb_s", "GB/s", "{:.0f}"),
    ("tflop_s", "TFLOP/s", "{:.1f}"),
    ("tok_s", "tok/s", "{:.1f}"),
    ("ceiling_share", "of ceiling", "{:.0%}"),
    ("other_over_ours", "other/ours", "{:.2f}"),
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line for each row with its part, and what was not run, or failed, and why."""
    head = ["part", "what", *(title for _, title, _ in _NUMBERS), ""]
    lines = [head, ["---", "---", *["---:"] * len(_NUMBERS), "---"]]
    for row in rows:
        numbers = [form.format(row[name]) if name in row else "" for name, _, form in _NUMBERS]
        lines.append([row["part"], row["name"], *numbers, _remark(row)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _remark(row: dict[str, Any]) -> str:
    remarks = [f"best of the others: {row['best_other']}"] if "best_other" in row else []
    remarks += [f"{name} not run: {why}" for name, why in row.get("not_run", {}).items()]
    remarks += [f"{word}: {row[word]}" for word in ("passed", "skipped", "failed") if word in row]
    return "; ".join(remarks).replace("|", "/")

"""What strangers named is shown on a terminal, never obeyed."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from ingot.profiling.terminal import console, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße,\n\t世界 👩‍💻", "Grüße,\n\t世界 👩‍💻"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("good\rbad\x08\x7f", "good\\rbad\\x08\\x7f"),
        ("\x9b31m", "\\x9b31m"),  # one character that begins a sequence, as ESC [ does
        ("user\u202e}gnirts\u2066", "user\\u202e}gnirts\\u2066"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_tables_keep_their_own_colours() -> None:
    file = io.StringIO()
    table = Table(title="\x1b]8;;http://x\x1b\\click")
    table.add_column("name", style="red")
    table.add_row("a\x1b[2Jb")
    terminal = console(file=file, force_terminal=True, color_system="standard", width=60)
    terminal.print(table)
    assert "\x1b[31m" in file.getvalue()
    assert "\x1b[2J" not in file.getvalue()
    assert "\x1b]8" not in file.getvalue()
    assert "a\\x1b" in file.getvalue()  # the rest may be cut: rich takes it for narrower

"""The terminal: names in a stranger's package, trace or model are shown there, never obeyed.

A terminal acts upon control characters: they move the cursor, change what a click opens, and on
some answer as if the user had typed. Unicode's bidirectional controls let text read as what it is
not (Boucher and Anderson 2023, Trojan Source).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Control characters as their escapes, `\\x1b`; newlines and tabs stay."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def console(**options: Any) -> Console:
    """rich's Console with these options, which prints what is printable."""
    from rich.console import Console
    from rich.segment import Segment

    class Printable(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control:
                    yield segment
                else:
                    yield Segment(printable(segment.text), segment.style)

    return Printable(**options)

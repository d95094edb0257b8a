"""One self-contained HTML page: sections of text, tables that sort and filter, plotly charts.

It works from a disk without a network: styles, scripts, plotly.js and the data are in the file, and
its Content-Security-Policy lets no other script run and nothing be fetched, whatever the names in a
stranger's trace say. A page is data: `render` turns it into text.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ProfileError

_TEMPLATES = Path(__file__).with_name("templates")

# Okabe and Ito's colours, told apart by the colour-blind, those that show on white and on black;
# then paler ones for whom eight are not enough.
PALETTE = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"),
    *("#9a8c00", "#8c6bb1", "#80b1d3", "#b3a078", "#7fbf9b", "#d98c8c"),
)
NEUTRAL = "#8a8a8a"  # what is unmatched, or a ceiling


@dataclass(frozen=True)
class Column:
    """key: of the rows. digits: decimals of a number; None: the column is text."""

    key: str
    title: str
    digits: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows are mappings by the columns' keys; a value that is None or absent is an empty cell."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    controls: bool = True  # whether it can be sorted and filtered


@dataclass(frozen=True)
class Chart:
    """A plotly figure: `data` and `layout` as plotly.js takes them. `escape` strangers' names."""

    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int = 420


@dataclass(frozen=True)
class Tabs:
    """One part at a time, by the label of a button."""

    parts: Mapping[str, Table | Chart]


@dataclass(frozen=True)
class Section:
    """text: paragraphs, plain."""

    title: str
    parts: Sequence[Table | Chart | Tabs]
    text: Sequence[str] = ()


def escape(name: str) -> str:
    """A name as text in a chart, where plotly would read tags and entities."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def render(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """The page. Raises ProfileError where it has a chart and plotly is not installed."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda part: type(part).__name__
    environment.filters["cell"] = _cell
    scripts = [_plotly()] if any(isinstance(p, Chart) for p in _parts(sections)) else []
    scripts.append((_TEMPLATES / "page.js").read_text())
    return environment.get_template("page.html.j2").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        palette=PALETTE,
        styles=(_TEMPLATES / "page.css").read_text(),
        scripts=scripts,
        script_hashes=[_source_hash(script) for script in scripts],
    )


def _parts(sections: Sequence[Section]) -> Iterator[Table | Chart]:
    for section in sections:
        for part in section.parts:
            yield from part.parts.values() if isinstance(part, Tabs) else (part,)


def _cell(value: Any, column: Column) -> str:
    if value is None:
        return ""
    return str(value) if column.digits is None else f"{value:,.{column.digits}f}"


def _plotly() -> str:
    if importlib.util.find_spec("plotly") is None:
        raise ProfileError(
            "plotly is not installed; a page with charts needs it: pip install 'ingot[report]'"
        )
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _source_hash(script: str) -> str:
    """As Content-Security-Policy names an inline script (CSP3, section 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

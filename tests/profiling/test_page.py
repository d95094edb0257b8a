"""The HTML page: whole, offline, quiet, and safe from the names in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ingot.profiling.errors import ProfileError
from ingot.profiling.files import write_whole
from ingot.profiling.page import Chart, Column, Section, Table, Tabs, escape, render
from tests.browser import CHROMIUM, visit

HOSTILE = '"><script>console.error("ran")</script><img src="http://127.0.0.1:9/x.png">'
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")


def example(name: str = "module") -> str:
    table = Table(
        [Column("name", "module"), Column("ms", "time, ms", digits=2)],
        [{"name": name, "ms": 9.0}, {"name": "b", "ms": 10.5}, {"name": "c", "ms": None}],
    )
    bars = Chart([{"type": "bar", "x": [escape(name)], "y": [1]}], {"title": {"text": "bars"}})
    icicle = Chart([{"type": "icicle", "labels": ["a"], "parents": [""], "values": [1]}], {})
    tabs = Tabs({"bars": bars, "icicle": icicle})
    return render(f"A page of {name}", [Section("Numbers", [table, tabs], ["words"])])


@needs_chromium
def test_opens_without_a_message_or_a_request(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(example())
    drawn = "document.querySelectorAll('.main-svg').length > 0"
    click = "document.querySelectorAll('.tabs button')[1].click()"
    slices = "document.querySelectorAll('.tab:not([hidden]) g.slice').length"
    seen = visit(page, drawn, click, slices, dark=True)
    assert seen.messages == []
    assert seen.requests == []
    assert seen.values == [True, None, 1]
    assert seen.screenshot.startswith(b"\x89PNG")


@needs_chromium
def test_the_browser_sees_messages_and_requests(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<img src="http://127.0.0.1:9/a.png"><script>console.error("one"); undefined.two</script>'
    )
    seen = visit(page)
    assert any(message == "error: one" for message in seen.messages)
    assert any("TypeError" in message for message in seen.messages)
    assert seen.requests == ["http://127.0.0.1:9/a.png"]


@needs_chromium
def test_names_are_text(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(example(HOSTILE))
    cell = "document.querySelector('tbody td').textContent"
    label = "document.querySelector('.xtick').textContent"
    seen = visit(page, cell, label, "document.title")
    assert seen.messages == []
    assert seen.requests == []
    assert seen.values == [HOSTILE, HOSTILE, f"A page of {HOSTILE}"]


@needs_chromium
def test_the_page_lets_no_other_script_run(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(example().replace("</main>", HOSTILE.removeprefix('">') + "</main>"))
    seen = visit(page)
    assert len(seen.messages) == 2  # the script's refusal and the image's
    assert all("Content Security Policy" in message for message in seen.messages)


@needs_chromium
def test_tables_sort_and_filter(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(example())
    names = """[...document.querySelectorAll('tbody tr')].filter(r => !r.hidden)
        .map(r => r.cells[0].textContent).join(' ')"""
    sort = "document.querySelectorAll('th button')[1].click()"
    word = """{ const box = document.querySelector('input'); box.value = 'MODULE 9.00';
        box.dispatchEvent(new Event('input')); }"""
    seen = visit(page, names, sort, names, sort, names, sort, names, word, names)
    assert seen.values[::2] == [
        "module b c",
        "b module c",  # numbers, largest first; what has none comes last
        "module b c",
        "module b c",
        "module",
    ]


def test_plotly_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ProfileError, match=r"pip install 'ingot\[report\]'"):
        example()


def test_without_charts_no_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    page = render("title", [Section("s", [Table([Column("a", "a")], [{"a": 1}])])])
    assert len(page) < 20_000


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.html", "text")
    victim = tmp_path / "victim"
    (tmp_path / f".a.html.{os.getpid()}.partial").symlink_to(victim)
    write_whole(tmp_path / "a.html", "text")
    assert (tmp_path / "a.html").read_text() == "text"
    assert not victim.exists()
    with pytest.raises(ProfileError, match="cannot write /dev/full: No space left on device"):
        write_whole(Path("/dev/full"), "text")
    assert Path("/dev/full").is_char_device()
    with pytest.raises(ProfileError, match="No such file or directory"):
        write_whole(tmp_path / "none" / "a.html", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]

"""`ingot report`: where an export's time went, and what became of the graph."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..profiling.files import write_whole
from ..profiling.reports.report import read_record, report


def run(source: Path, output: Path | None, as_json: bool) -> None:
    record = read_record(source)
    found = report(record)
    if output is not None:
        from ..profiling.reports.page import page

        write_whole(output, page(record, source.name))
    if as_json:
        click.echo(json.dumps(found))
    elif output is None:
        from ..profiling.reports.table import tables
        from ..profiling.terminal import console

        terminal = console(markup=False)
        for table in tables(found):
            terminal.print(table)

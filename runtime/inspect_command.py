"""`ingot inspect`: what is inside a package. Works for packages that this CPU cannot run."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import click

from .package import read_manifest


def describe(path: Path) -> dict[str, Any]:
    """The manifest and the compile record inside. Raises BadInput or BadPackage."""
    manifest = read_manifest(path)
    report: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        if "model/ingot/report.json" in archive.namelist():
            report = json.loads(archive.read("model/ingot/report.json"))
    return {"file_bytes": path.stat().st_size, "manifest": manifest, "report": report}


def run(path: Path, as_json: bool) -> None:
    found = describe(path)
    if as_json:
        click.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    manifest, console = found["manifest"], Console(markup=False)
    model, cache = manifest["model"], manifest["kv_cache"]
    facts = Table(show_header=False, title=Text(str(path)))
    facts.add_row("model", f"{model['name']} ({model['architecture']})")
    facts.add_row("parameters", f"{model['parameters'] / 1e6:.2f} M, {model['dtype']}")
    facts.add_row("longest sequence", f"{model['max_seq_len']} tokens")
    per_token = cache["bytes_per_block"] * cache["num_layers"] / cache["block_size"]
    facts.add_row("KV cache", f"{cache['dtype']}, {per_token / 1024:.1f} KiB a token")
    for variant in manifest["variants"]:
        needs = ", needs libtorch" if variant["requires"] else ""
        facts.add_row("code", f"{variant['isa']}{needs}")
    facts.add_row("made by", ", ".join(f"{k} {v}" for k, v in manifest["producer"].items()))
    for schema in manifest["ops"].values():
        facts.add_row("op", schema)
    for name, fact in manifest["entries"].items():
        facts.add_row("entry", f"{name}  {fact['bytes']:,} bytes")
    console.print(facts)
    if found["report"]:
        phases = Table("compile phase", "seconds")
        for event in found["report"]["events"]:
            phases.add_row(event["name"], f"{event['duration_s']:.2f}")
        console.print(phases)

"""`ingot inspect`: what is inside a package. Works for packages that this CPU cannot run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..profiling.record import Record
from ..profiling.reports.report import entry, read_record, report
from .package import read_manifest


def describe(path: Path) -> dict[str, Any]:
    """The manifest and the compile record inside, which is empty where there is none. Raises
    BadInput, BadPackage or ProfileError."""
    manifest = read_manifest(path)
    record = {} if entry(path) is None else read_record(path).to_dict()
    return {"file_bytes": path.stat().st_size, "manifest": manifest, "report": record}


def _by_kind(manifest: dict[str, Any]) -> dict[str, str]:
    """What only some kinds of package have, as rows of the table."""
    rows = {}
    if "max_seq_len" in manifest["model"]:
        rows["longest sequence"] = f"{manifest['model']['max_seq_len']} tokens"
    if cache := manifest.get("kv_cache"):
        per_token = cache["bytes_per_block"] * cache["num_layers"] / cache["block_size"]
        rows["KV cache"] = f"{cache['dtype']}, {per_token / 1024:.1f} KiB a token"
    if recipe := manifest["quantization"]:
        bits = " and ".join(map(str, recipe["activation_bits"]))
        rows["quantisation"] = f"{recipe['name']}, x in {bits} bits"
        rows["layouts"] = ", ".join(f"{n} x {layout}" for layout, n in recipe["layouts"].items())
        if recipe["imported"]:
            rows["as the checkpoint"] = _facts(recipe["imported"])
        if recipe["rules"]:
            rows["rules"] = "\n".join(map(_rule, recipe["rules"]))
    if how := manifest.get("embedding"):
        normalized = ", normalised" if how["normalize"] else ""
        rows["embedding"] = f"{how['pooling']}{normalized}, of {how['max_tokens']} tokens at most"
    if labels := manifest["model"].get("labels"):
        rows["labels"] = f"{len(labels)}: {', '.join(labels[:5])}{', ...' * (len(labels) > 5)}"
    return rows


def _rule(rule: dict[str, Any]) -> str:
    how = {name: value for name, value in rule.items() if name != "modules"}
    return f"{rule['modules']}: {_facts(how) if rule['bits'] else 'kept'}"


def _facts(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _signature(fact: dict[str, Any]) -> str:
    return f"{fact['name']} {fact['dtype']} [{', '.join(map(str, fact['shape']))}]"


def run(path: Path, as_json: bool) -> None:
    found = describe(path)
    if as_json:
        click.echo(json.dumps(found))
        return
    from rich.table import Table
    from rich.text import Text

    from ..profiling.terminal import console

    manifest, terminal = found["manifest"], console(markup=False)
    model = manifest["model"]
    facts = Table(show_header=False, title=Text(str(path)))
    facts.add_row("model", f"{model['name']} ({model['architecture']})")
    facts.add_row("parameters", f"{model['parameters'] / 1e6:.2f} M, {model['dtype']}")
    for name, value in _by_kind(manifest).items():
        facts.add_row(name, value)
    for name in ("inputs", "outputs"):
        if model["kind"] != "decoder":
            facts.add_row(name, "\n".join(map(_signature, manifest["graph"][name])))
    for variant in manifest["variants"]:
        needs = ", needs libtorch" if variant["requires"] else ""
        size = manifest["entries"][variant["entry"]]["bytes"]
        facts.add_row("code", f"{variant['name']}, {size:,} bytes{needs}")
    facts.add_row("made by", ", ".join(f"{k} {v}" for k, v in manifest["producer"].items()))
    for schema in manifest["ops"].values():
        facts.add_row("op", schema)
    for name, fact in manifest["entries"].items():
        facts.add_row("entry", f"{name}  {fact['bytes']:,} bytes")
    terminal.print(facts)
    if found["report"]:
        from ..profiling.reports.table import phases

        terminal.print(phases(report(Record.from_dict(found["report"]))))

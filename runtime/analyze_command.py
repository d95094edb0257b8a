"""`ingot analyze`: what a model costs on a machine, before it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..profiling.analysis import (
    GPU_STEP_TOKENS,
    Row,
    Subject,
    analyze,
    grouped,
    request_of,
    step_tokens_on_cpu,
)
from ..profiling.calls import calls_of, evaluate
from ..profiling.roofline import known_hardware, read_hardware
from .errors import BadInput
from .inspect_command import describe

_UNITS = tuple(zip((1e15, 1e12, 1e9, 1e6, 1e3, 1, 1e-3, 1e-6, 1e-9), "PTGMk mun", strict=True))


def of_package(path: Path) -> Subject:
    """A package's manifest and the calls that its compile record lists. Raises BadInput."""
    found = describe(path)
    manifest, calls = found["manifest"], calls_of(found["report"], path)
    model, recipe = manifest["model"], manifest["quantization"]
    if model["kind"] == "module":
        raise BadInput(f"{path} is a module of your own; analyze knows decoders and encoders")
    plan = found["report"]["facts"].get("memory_plan")
    module_bytes: dict[str, int] = {}
    for name, fact in manifest["constants"].items():
        module = name.rpartition(".")[0]
        module_bytes[module] = module_bytes.get(module, 0) + fact["nbytes"]
    return Subject(
        str(path),
        model,
        weight_bytes=manifest["entries"]["ingot/weights.bin"]["bytes"],
        module_bytes=module_bytes,
        max_tokens=model.get("max_seq_len", 1),
        calls=lambda _: calls,
        temporary_bytes=lambda sizes: plan and int(evaluate(plan["peak_bytes"], sizes)),
        cache=manifest.get("kv_cache"),
        activation_bits=max(recipe["activation_bits"], default=16) if recipe else 16,
        quantization=recipe and recipe["name"],
        package=path,
    )


def run(
    subject: Subject,
    *,
    hardware: str,
    batch: int,
    prompt: int | None,
    context: int | None,
    step_tokens: int | None,
    threads: int,
    as_json: bool,
) -> None:
    if step_tokens is None:
        on_gpu = hardware in known_hardware()
        step_tokens = GPU_STEP_TOKENS if on_gpu else step_tokens_on_cpu(subject, batch)
    request = request_of(subject, batch, prompt, context, step_tokens)
    if hardware == "cpu":
        from .speeds import measure

        machine = measure(subject, request, threads)
    else:
        machine = read_hardware(hardware)
    result = analyze(subject, request, machine)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    from ..profiling.terminal import console

    terminal = console(markup=False, highlight=False)
    terminal.print(_facts(result))
    rows = grouped(result)
    for phase in result["phases"]:
        terminal.print(_table(phase, rows))


def _facts(result: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    model, memory, request = result["model"], result["memory"], result["request"]
    quantized = f", {model['quantization']}" if model["quantization"] else ""
    facts = Table(show_header=False, title=Text(result["source"]))
    facts.add_row("model", f"{model['name']} ({model['architecture']})")
    facts.add_row("parameters", f"{model['parameters']:,}, {model['dtype']}{quantized}")
    machine = result["hardware"]
    rates = (f"{_short(rate * 1e9)}FLOP/s {dtype}" for dtype, rate in machine["gflop_s"].items())
    facts.add_row("hardware", machine["name"])
    facts.add_row("", ", ".join((f"{_short(machine['read_gb_s'] * 1e9)}B/s", *rates)))
    for kernel, speed in machine["kernels"].items():
        reached = f"{_short(speed['gb_s'] * 1e9)}B/s, {_short(speed['gflop_s'] * 1e9)}FLOP/s"
        facts.add_row(kernel, reached)
    parts = {"weights": "weight", "KV cache": "kv", "temporaries": "temporary", "in all": "total"}
    for name, field in parts.items():
        size = memory[f"{field}_bytes"]
        facts.add_row(f"memory: {name}", "unknown" if size is None else f"{_short(size)}B")
    fits = "fits" if memory["fits"] else "does NOT fit"
    facts.add_row("", f"{fits} the {_short(memory['hardware_bytes'])}B of the hardware")
    batch, image = request["batch"], model["kind"] == "image-classifier"
    runs = {
        "prefill": f"prefill of {batch} x {request['prompt']} tokens",
        "decode": f"decode step of {batch} at {request['context']} tokens",
        "forward": f"run of {batch} images" if image else f"run of {batch} x {request['prompt']}",
    }
    for phase, found in result["phases"].items():
        pace = next(name for name in found if name.endswith("_per_s"))
        facts.add_row(
            runs[phase],
            f"{_short(found['seconds'])}s, {found[pace]:,.1f} {pace.removesuffix('_per_s')}/s: "
            f"{_short(found['flops'])}FLOP, {_short(_moved(found))}B, {found['bound']}-bound",
        )
    return facts


def _moved(found: dict[str, Any]) -> float:
    return float(found["read_bytes"] + found["written_bytes"])


def _table(phase: str, rows: Sequence[Row]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=phase, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("module", no_wrap=True)
    for column in ("weights", "FLOP", "bytes", "FLOP/B", "bound", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    layers = Row("")
    for row in (row for row in rows if phase in row.phases):
        found = row.phases[phase].to_dict()
        layers = row if row.is_layer else layers
        table.add_row(
            _name(row, layers),
            f"{_short(row.weight_bytes)}B",
            _short(found["flops"]),
            _short(_moved(found)),
            f"{found['intensity']:.3g}",
            found["bound"],
            f"{_short(found['seconds'])}s",
            style="bold" if row.is_layer else None,
        )
    return table


def _name(row: Row, layers: Row) -> str:
    """Inside the layers, without their name, and without their number where that is the row's."""
    inside = row is not layers and layers.is_layer and row.module.startswith(layers.module)
    count = len(row.members)
    times = f" x{count}" if count > 1 and not (inside and count == len(layers.members)) else ""
    own = row.module.removeprefix(layers.module).removeprefix(".") if inside else row.module
    return "  " * inside + (own or "(itself)") + times


def _short(number: float) -> str:
    """Three digits and a decimal prefix: 6.74 G."""
    for unit, prefix in _UNITS:
        if number >= unit:
            return f"{number / unit:.3g} {prefix.strip()}"
    return "0 "

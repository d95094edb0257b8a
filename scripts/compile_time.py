"""What an export takes: seconds by phase and by layer, and memory, for random weights.

    python scripts/compile_time.py [--layers 2,22] [--variants bfloat16,int4]
    python scripts/compile_time.py --shape llama-2-7b --layers 9 --variants bfloat16,int8,int4

Each export is a process of its own on a machine that has exported, but not this model: what is
made once a machine is in the cache, the model's code is not. Checkpoints of bfloat16 weights, and
packages, lie in a temporary folder, which needs room for twice the weights. `weights` is what was
waited for: they are read and written beside the graph, except where they are quantised.
`anonymous` is the most memory of the process and its compilers at once that lies in no file,
sampled every 20 ms; what is mapped from a file the kernel takes back when memory is short. Times
want an idle machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
from bench_model import SHAPES

from ingot.profiling.record import Record, unattributed

ROOT = Path(__file__).parents[1]
VARIANTS = {
    "float32": ["--dtype", "float32"],
    "bfloat16": ["--dtype", "bfloat16"],
    "int8": ["--dtype", "bfloat16", "--quant", "int8"],
    "int4": ["--dtype", "bfloat16", "--quant", "int4"],
}
# Phases whose time is that of the weights' bytes, not of the graph.
WEIGHTS = ("load checkpoint", "plan weights", "write package")
LLAMA_2_7B = {
    **SHAPES["tinyllama-1.1b"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_key_value_heads": 32,
}


def write_checkpoint(folder: Path, layers: int, shape: str = "tinyllama-1.1b") -> Path:
    """Random weights at a shape of bench_model.py, bfloat16, one file of safetensors a block."""
    import torch
    from safetensors.torch import save_file

    from ingot import models

    folder.mkdir(parents=True)
    config = {**(SHAPES | {"llama-2-7b": LLAMA_2_7B})[shape], "num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    _, family, model = models.outline(folder, "bfloat16")
    generator = torch.Generator().manual_seed(0)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for path, name, owner in model.owners():
        block = ".".join(path.split(".")[:3]) if ".layers." in path else "rest"
        for piece, size in owner.pieces(path, name).items():
            values = torch.empty(size, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
            parts.setdefault(block, {})[family.on_disk(piece)] = values + ("norm" in path)
    places = {}
    for block, tensors in parts.items():
        file = f"{block}.safetensors"
        save_file(tensors, folder / file)
        places |= dict.fromkeys(tensors, file)
    index = json.dumps({"weight_map": places})
    (folder / "model.safetensors.index.json").write_text(index)
    return folder


def anonymous_mb(process: int, parent: str = "") -> float:
    """Of a process and those that it started, in MiB (proc(5): RssAnon). One that runs its parent's
    program has not begun its own yet, and its memory is the parent's."""
    found = 0.0
    try:
        program = os.readlink(f"/proc/{process}/exe")
        if program == parent:
            return 0.0
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                found += int(line.split()[1]) / 1024
        for task in Path(f"/proc/{process}/task").iterdir():
            children = (task / "children").read_text().split()
            found += sum(anonymous_mb(int(child), program) for child in children)
    except OSError:  # it has ended
        pass
    return found


@dataclass(frozen=True)
class Run:
    """One export's record, and its peaks in MiB: of anonymous memory, and of all that was resident,
    files too (proc(5): VmHWM), without compilers."""

    record: Record
    anonymous_mb: float

    @property
    def resident_mb(self) -> float:
        return max(event.counters.get("peak_rss_mb", 0) for event in self.record.events)

    def seconds(self, *, weights: bool) -> float:
        return sum(e.duration_s for e in self.record.events if (e.name in WEIGHTS) == weights)


def export(checkpoint: Path, output: Path, options: list[str], cache: Path) -> Run:
    shutil.rmtree(cache / "compiled", ignore_errors=True)
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "ingot", "export", str(checkpoint), "-o", str(output)]
    environment = {**os.environ, "INGOT_CACHE_DIR": str(cache)}
    with tempfile.TemporaryFile("w+") as out:
        with subprocess.Popen(
            [*command, *options, "--json"], stdout=out, stderr=subprocess.DEVNULL, env=environment
        ) as child:
            most = 0.0
            while child.poll() is None:
                most = max(most, anonymous_mb(child.pid))
                time.sleep(0.02)
        if child.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
        out.seek(0)
        return Run(Record.from_dict(json.load(out)), most)


def table(runs: dict[tuple[str, int], Run]) -> list[str]:
    rows = [
        "| | layers | whole, s | graph, s | weights, s | unattributed | anonymous, MiB"
        " | resident, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (variant, layers), run in runs.items():
        wall = run.record.wall_s
        parts = (
            f"{wall:.1f} | {run.seconds(weights=False):.1f} | {run.seconds(weights=True):.1f}",
            f"{unattributed(run.record) / wall:.1%}",
            f"{run.anonymous_mb:.0f} | {run.resident_mb:.0f}",
        )
        rows.append(f"| {variant} | {layers} | {' | '.join(parts)} |")
    return rows


def by_layer(runs: dict[tuple[str, int], Run], variant: str) -> str:
    """Seconds that a layer more takes, from the fewest layers to the most."""
    found = {layers: run for (name, layers), run in runs.items() if name == variant}
    few, many = min(found), max(found)
    seconds = (found[many].record.wall_s - found[few].record.wall_s) / (many - few)
    return f"{variant}, a layer more: {seconds:.2f} s"


@click.command()
@click.option("--layers", default="2,22", show_default=True)
@click.option("--variants", default="bfloat16,int4", show_default=True)
@click.option("--shape", default="tinyllama-1.1b", show_default=True)
def main(layers: str, variants: str, shape: str) -> None:
    counts = [int(part) for part in layers.split(",")]
    runs: dict[tuple[str, int], Run] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache, output = folder / "cache", folder / "model.pt2"
        export(ROOT / "demo" / "checkpoint", output, [], cache)
        for count in counts:
            checkpoint = write_checkpoint(folder / str(count), count, shape)
            for variant in variants.split(","):
                runs[variant, count] = export(checkpoint, output, VARIANTS[variant], cache)
                click.echo(table({(variant, count): runs[variant, count]})[-1], err=True)
            shutil.rmtree(checkpoint)
    click.echo("\n".join(table(runs)))
    if len(counts) > 1:
        click.echo("\n".join(by_layer(runs, variant) for variant in variants.split(",")))


if __name__ == "__main__":
    main()

"""What an export takes: seconds by phase and by layer, and memory, for random weights.

    python scripts/compile_time.py [--layers 2,12,22] [--variants float32,bfloat16,int8,int4]
    python scripts/compile_time.py --checkpoint FOLDER [--quant RECIPE] [--calib FILE]

Each export is a process of its own on a machine that has exported, but not this model: what is made
once a machine is in the cache, the model's code is not. Checkpoints have the TinyLlama-1.1B shape
and lie in a temporary folder, with bfloat16 weights; 22 layers take 2.2 GB and their package as much
again or twice. `anonymous` is the most memory of the process and its compilers at once that is no
mapping of a file, sampled every 20 ms; what is mapped the kernel takes back when memory is short.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click

from ingot.profiling.record import UNATTRIBUTED, Record, unattributed

ROOT = Path(__file__).parents[1]
VARIANTS = {
    "float32": ["--dtype", "float32"],
    "bfloat16": ["--dtype", "bfloat16"],
    "int8": ["--dtype", "bfloat16", "--quant", "int8"],
    "int4": ["--dtype", "bfloat16", "--quant", "int4"],
}
# Phases whose time is that of the weights' bytes, not of the graph.
WEIGHTS = ("load checkpoint", "plan weights", "write package")


def write_checkpoint(folder: Path, layers: int, shape: str = "tinyllama-1.1b") -> Path:
    """Random weights at a shape of bench_model.py, bfloat16, one file of safetensors a block."""
    import torch
    from bench_model import SHAPES
    from safetensors.torch import save_file

    from ingot import models

    folder.mkdir(parents=True)
    config = {**SHAPES[shape], "num_hidden_layers": layers}
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


def anonymous_mb(process: int) -> float:
    """Of a process and those that it started, in MiB (proc(5): RssAnon)."""
    found = 0.0
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                found += int(line.split()[1]) / 1024
        for task in Path(f"/proc/{process}/task").iterdir():
            children = (task / "children").read_text().split()
            found += sum(anonymous_mb(int(child)) for child in children)
    except OSError:  # it has ended
        pass
    return found


def export(checkpoint: Path, output: Path, options: list[str], cache: Path) -> dict[str, Any]:
    """The record of one export, and its most anonymous memory, with compilers and without."""
    shutil.rmtree(cache / "compiled", ignore_errors=True)
    command = [sys.executable, "-m", "ingot", "export", str(checkpoint), "-o", str(output)]
    environment = {**os.environ, "INGOT_CACHE_DIR": str(cache)}
    with (
        tempfile.TemporaryFile("w+") as out,
        subprocess.Popen([*command, *options, "--json"], stdout=out, env=environment) as child,
    ):
        alone = tree = 0.0
        while child.poll() is None:
            tree = max(tree, anonymous_mb(child.pid))
            time.sleep(0.02)
        if child.returncode:
            raise SystemExit(child.returncode)
        out.seek(0)
        return {"record": Record.from_dict(json.load(out)), "anonymous_mb": tree}


def seconds(record: Record, *, weights: bool) -> float:
    return sum(e.duration_s for e in record.events if (e.name in WEIGHTS) == weights)

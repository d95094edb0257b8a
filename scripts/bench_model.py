"""A whole model of random weights at a named shape: speed, start, memory, and where a step goes.

    python scripts/bench_model.py SHAPE [--dtype bfloat16] [--threads N] [--rounds R] [--json]

The package is kept in build/bench and made when it is missing. Generation and memory READ alternate
in one process; medians are reported, and speeds as shares of READ, since time alone says little on
a shared machine. The start is that of fresh `ingot-run` processes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

import ingot
from ingot import native
from ingot.profiling.calls import own_name
from ingot.runtime.bench_command import measure

SHAPES: dict[str, dict[str, Any]] = {
    "tinyllama-1.1b": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "llama-3-8b": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    },
    "qwen2.5-0.5b": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
    "llama-3.2-1b": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}


# What a decode step's time is told apart by, of the ops' names; the rest is generated code.
_KINDS = {
    "linear": "linear",
    "linear_w4": "linear",
    "linear_w8": "linear",
    "linear_many_activated": "linear",
    "linear_activated": "linear",
    "linear_w4_activated": "linear",
    "linear_w8_activated": "linear",
    "paged_attention": "attention",
    "embedding": "embedding",
    "quantised_embedding": "embedding",
}


def package_of(
    shape: str, dtype: str, recipe: str | None, group_size: int | None, device: str = "cpu"
) -> Path:
    """The shape's package, exported with random weights if build/bench lacks it."""
    on = device if device != "cpu" else None
    parts = (dtype, recipe, group_size and f"g{group_size}", on)
    how = "-".join(part for part in parts if part)
    output = Path(__file__).parents[1] / "build" / "bench" / f"{shape}-{how}.pt2"
    if not output.exists():
        from ingot import models, quant
        from ingot.export import export_model

        output.parent.mkdir(parents=True, exist_ok=True)
        config, family = models.read_config(SHAPES[shape], shape)
        model = models.empty(config, dtype=dtype, model=family.model)
        if recipe is not None:
            rules = quant.find(recipe, group_size)
            quant.swap(model, rules)
            model.quantization = quant.describe(model, rules)
        models.fill_random(model)
        export_model(
            model,
            output,
            name=shape,
            device=device,
            progress=lambda p: click.echo(p, err=True),
        )
    return output


def cold_start(package: Path, threads: int, rounds: int) -> dict[str, float]:
    """Medians over fresh processes, a prompt of 32 tokens."""
    command = [str(native.find("ingot-run")), str(package), "--json", "--max-new-tokens", "2"]
    command += ["--tokens", ",".join(map(str, range(1, 33))), "--ignore-eos"]
    command += ["--threads", str(threads)]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(rounds)]
    fields = ("load_ms", "first_token_ms", "peak_rss_mb")
    return {name: statistics.median(run[name] for run in runs) for name in fields}


def step_breakdown(package: ingot.Package, context: int) -> dict[str, float]:
    """Milliseconds of the median decode step after `context` tokens, by what runs."""
    from ingot.runtime import capi

    with tempfile.TemporaryDirectory() as folder, package.session() as session:
        list(session.generate([1] * context, max_new_tokens=2, ignore_eos=True))
        capi.library().ingot_trace_start()
        list(session.generate([1], max_new_tokens=16, ignore_eos=True))
        trace = Path(folder) / "trace.json"
        capi.check(capi.library().ingot_trace_write(os.fsencode(trace)))
        events = json.loads(trace.read_text())["traceEvents"]
    parts = []
    for step in (e for e in events if e["name"] == "step" and e["args"]["tokens"] == 1):
        end = step["ts"] + step["dur"]
        calls = [e for e in events if e.get("cat") in ("kernel", "op")]
        inside = [e for e in calls if step["ts"] <= e["ts"] <= end]
        times = dict.fromkeys((*_KINDS.values(), "generated"), 0.0)
        for event in inside:
            name = own_name(event["name"])
            kind = _KINDS.get(name, "generated")
            times[kind] += event["dur"] / 1e3
        times["host"] = step["dur"] / 1e3 - sum(times.values())
        parts.append({**times, "step": step["dur"] / 1e3})
    middle = sorted(parts, key=lambda p: p["step"])[len(parts) // 2]
    return {name: round(value, 3) for name, value in middle.items()}


@click.command()
@click.argument("shape", type=click.Choice(sorted(SHAPES)))
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16")
@click.option("--quant", "recipe", help="A recipe without calibration, such as int4-a8.")
@click.option("--group-size", type=int)
@click.option("--threads", default=0, help="0: the cores that are free.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(
    shape: str,
    dtype: str,
    recipe: str | None,
    group_size: int | None,
    threads: int,
    rounds: int,
    as_json: bool,
) -> None:
    path = package_of(shape, dtype, recipe, group_size)
    package = ingot.load(path, threads=threads)
    weights = package.manifest["entries"]["ingot/weights.bin"]["bytes"] / 2**20
    found: dict[str, Any] = {"shape": shape, "dtype": dtype, "weights_mb": weights}
    for prompt in (32, 512):
        found[f"after {prompt}"] = measure(package, prompt, 32, rounds)
    found["step ms after 512"] = step_breakdown(package, 512)
    found["cold"] = cold_start(path, threads, rounds)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{path.stem}, {weights:.0f} MiB of weights")
    for prompt in (32, 512):
        speed = found[f"after {prompt}"]
        click.echo(
            f"prompt {prompt:4}: prefill {speed['prefill_tok_s']:7.1f} tok/s, decode"
            f" {speed['decode_tok_s']:6.2f} tok/s, {speed['bandwidth_share']:.0%} of READ at"
            f" {speed['read_gb_s']:.1f} GB/s"
        )
    parts = ", ".join(f"{name} {ms}" for name, ms in found["step ms after 512"].items())
    click.echo(f"a decode step after 512, ms: {parts}")
    cold = ", ".join(f"{name} {value:.1f}" for name, value in found["cold"].items())
    click.echo(f"cold ingot-run, prompt 32: {cold}")


if __name__ == "__main__":
    main()

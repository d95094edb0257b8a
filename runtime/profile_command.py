"""`ingot profile`: a package's run, traced, joined with its compile record, and told in tables.

Untraced and traced runs alternate after one that warms up; of the traced ones that with the median
time is shown and written. What is made of a trace is pure and in `profiling/`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from .. import __version__, process
from ..profiling.analysis import request_of, step_tokens_on_cpu
from ..profiling.calls import Call, calls_of
from ..profiling.errors import ProfileError
from ..profiling.files import write_whole
from ..profiling.roofline import Hardware, kernel_name
from ..profiling.runs.join import join
from ..profiling.runs.predicted import predicted
from ..profiling.runs.summary import summarise
from ..profiling.trace import Header, Trace, from_chrome, read_json
from . import analyze_command, ops, speeds, tracing, workloads
from .errors import BadInput
from .inspect_command import describe
from .package import Package
from .prompts import made_up, parse_tokens
from .workloads import Workload

_OPTIONS = {"decoder": ("--prompt", "--tokens"), "encoder": ("--tokens", "--text")}


@dataclass(frozen=True)
class Options:
    """What to run, as the command line says it."""

    prompt: str | None
    tokens: str | None
    prompt_tokens: int
    new_tokens: int
    texts: Sequence[str]
    sizes: Sequence[str]
    repeats: int
    threads: int
    verify: bool
    key: Path | None


def run(
    path: Path, *, recorded: Path | None, output: Path | None, as_json: bool, **options: Any
) -> None:
    """recorded: a trace of this package, to be explained instead of a new run."""
    if recorded and (options["verify"] or options["key"] is not None):
        raise BadInput("--key and --verify check a package that is run, and with --trace none is")
    if output and not output.absolute().parent.is_dir():
        raise ProfileError(f"there is no folder {output.absolute().parent}; make it first")
    facts = describe(path)
    if recorded:
        calls = calls_of(facts["report"], path)
        trace = join(_read(recorded, path, facts["manifest"]), calls)
    else:
        aliases = facts["report"]["facts"].get("aliases", {})
        chosen = Options(**options)
        trace = record(path, chosen, aliases)
        calls = calls_of(facts["report"], path, trace.header.environment["variant"])
        trace = join(trace, calls)
        if trace.header.ceilings:
            trace = _with_prediction(trace, calls, path, chosen.threads)
    if output:
        write_whole(output, json.dumps(trace.to_chrome()))
    result = report(trace)
    if as_json:
        click.echo(json.dumps(result))
    else:
        from .profile_table import show

        show(result)


def record(path: Path, options: Options, aliases: dict[str, str]) -> Trace:
    """The median traced run, with a header that says the rest. Raises the runtime's errors."""
    if options.repeats < 1:
        raise BadInput("profile needs at least 1 repeat")
    begun = process.now()
    package = Package(path, threads=options.threads, verify=options.verify, key=options.key)
    load_ms = (process.now() - begun) * 1e3
    workload = _workload(package, options)
    workload.run()  # warms up
    untraced, runs, ceilings = [], [], []
    for _ in range(options.repeats):
        ceilings.append(tracing.ceilings(package, options.threads))
        untraced.append(workload.run().times)
        runs.append(tracing.traced(workload.run))
    peak_rss_mb = process.peak_rss_mb()
    runs.sort(key=lambda run: run[0].times["total_ms"])
    outcome, trace = runs[(len(runs) - 1) // 2]
    header = Header(
        engine="ingot",
        name=str(path),
        model=package.manifest["model"],
        aliases=aliases,
        request=workload.request,
        result=outcome.result,
        runs=untraced,
        start_up={"load_ms": load_ms},
        memory={"peak_rss_mb": peak_rss_mb},
        ceilings={name: statistics.median(c[name] for c in ceilings) for name in ceilings[0]},
        environment={
            "ingot": __version__,
            "level": ops.level(),
            "variant": package.variant or "",
            "threads": str(options.threads or "the cores that are free"),
        },
    )
    if workload.sizes:
        for step in trace.steps():
            step.args["sizes"] = dict(workload.sizes)
    return replace(trace, header=header)


def report(trace: Trace) -> dict[str, Any]:
    """One JSON object of a joined trace: its header's facts, and `summarise`."""
    header, tables = trace.header, summarise(trace)
    medians = {
        name: statistics.median(run[name] for run in header.runs)
        for name in ("total_ms", "prefill_ms", "decode_ms")
        if header.runs
    }
    with_request = any(event.category == "request" for event in trace.events)
    overhead = {
        phase: tables["coverage"][phase]["wall_ms"] / medians[f"{phase}_ms"] - 1
        for phase in ("prefill", "decode")
        if with_request and medians.get(f"{phase}_ms")
    }
    return {
        "name": header.name,
        "model": header.model,
        "request": header.request,
        "untraced": medians,
        "tracing_overhead": overhead,
        "start_up": header.start_up,
        "memory": header.memory,
        "ceilings": header.ceilings,
        "environment": header.environment,
        **tables,
    }


def _read(recorded: Path, path: Path, manifest: dict[str, Any]) -> Trace:
    """A trace of this package. Raises ProfileError where it is another model's."""
    trace = from_chrome(read_json(recorded), str(recorded))
    model, known = trace.header.model, manifest["model"]
    differing = [name for name in model if name in known and model[name] != known[name]]
    if differing:
        name = differing[0]
        raise ProfileError(
            f"{recorded} is of another model: its {name} is {model[name]}, that of {path} is"
            f" {known[name]}; give the package that made the trace"
        )
    if not trace.steps():
        raise ProfileError(f"{recorded} has no steps; record it with ingot run {path} --trace")
    return trace


def _workload(package: Package, options: Options) -> Workload:
    """Raises BadInput for options that are not of the package's kind."""
    kind = package.manifest["model"]["kind"]
    flags = {"prompt": "--prompt", "tokens": "--tokens", "texts": "--text", "sizes": "--size"}
    asked = [flag for name, flag in flags.items() if getattr(options, name) not in (None, ())]
    fitting = _OPTIONS.get(kind, ("--size",))
    if wrong := [flag for flag in asked if flag not in fitting]:
        raise BadInput(
            f"{package.path} is of kind {kind}: give {' or '.join(fitting)}, not {wrong[0]}"
        )
    if len(asked) > 1:
        raise BadInput(f"give one of {' and '.join(asked)}")
    if kind not in _OPTIONS:
        return workloads.random_arrays(package, workloads.parse_sizes(options.sizes))
    if options.texts:
        return workloads.embedding(package, options.texts)
    if options.tokens is not None:
        ids = parse_tokens(options.tokens)
    elif options.prompt is not None:
        ids = package.encode(options.prompt)
    else:
        ids = made_up(options.prompt_tokens, package.manifest["model"]["vocab_size"])
    if kind == "encoder":
        return workloads.encoding(package, ids)
    return workloads.generation(package, ids, options.new_tokens)


def _with_prediction(trace: Trace, calls: Sequence[Call], path: Path, threads: int) -> Trace:
    """The roofline's, from what each kind of kernel reaches on this machine, measured now."""
    request, ceilings = trace.header.request, trace.header.ceilings
    if trace.header.model["kind"] == "module":
        rates = {"float32": ceilings["gflop_s"]}
        machine = Hardware("this machine", 0.0, ceilings["read_gb_s"], rates)
        return predicted(trace, calls, machine, kernel_name)
    subject = analyze_command.of_package(path)
    prompt = len(request["tokens"]) if "tokens" in request else None
    context = (prompt or 0) + request.get("new_tokens", 0) // 2 or None
    asked = request_of(
        subject,
        1,
        prompt,
        context if subject.kind == "decoder" else None,
        step_tokens_on_cpu(subject, 1),
    )
    return predicted(trace, calls, speeds.measure(subject, asked, threads), subject.kernel)

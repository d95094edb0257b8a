"""`ingot compare`: engines run on the same inputs, each in a process of its own, then compared.

The comparison itself is pure (profiling/comparison/); here are sources, inputs and the order of
runs. Traces are recorded first, then compared as stored ones are: `--save-traces` loses nothing.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from ..profiling import readers
from ..profiling.attribution import median_run
from ..profiling.comparison.compare import compare, engine_names
from ..profiling.engine import Process, Request
from ..profiling.errors import ProfileError
from ..profiling.files import write_whole
from ..profiling.trace import Trace, read_json
from . import load
from .prompts import made_up, parse_tokens

_TRACED = 3  # runs, of which the one with the median time is shown
_PAUSE_S = 0.1  # before a run: threads of the engine before it still spin (docs/compare.md)


@dataclass(frozen=True)
class Kind:
    """An engine's module, and the library it needs beside Ingot's own."""

    module: str
    library: str = ""
    install: str = ""


KINDS = {
    "eager": Kind("ingot.export.engines.eager", "torch", "'ingot[export]'"),
    "hf": Kind("ingot.export.engines.hf", "transformers", "transformers"),
    "compile": Kind("ingot.export.engines.compiled", "torch", "'ingot[export]'"),
    "onnx": Kind("ingot.runtime.engines.onnx", "onnxruntime", "'ingot[onnx]'"),
    "package": Kind("ingot.runtime.engines.package"),
}


@dataclass(frozen=True)
class Source:
    """kind: of KINDS, or "trace". target: its file, or folder with options ("folder@bfloat16").
    checks: `verify` and `key` of `ingot.load`, of a package."""

    text: str
    kind: str
    target: str
    checks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return Path(self.target.partition("@")[0])


def run(
    texts: Sequence[str],
    *,
    prompt: str | None,
    tokens: str | None,
    prompt_tokens: int | None,
    new_tokens: int | None,
    repeats: int,
    threads: int,
    verify: bool,
    key: Path | None,
    output: Path | None,
    save_traces: Path | None,
    as_json: bool,
    progress: Callable[[str], None],
) -> None:
    """Raises ProfileError or the runtime's errors, one sentence each, before anything has run."""
    if len(texts) < 2:
        raise ProfileError("compare needs two sources at least; see ingot compare --help")
    if repeats < 1 or (new_tokens or 0) < 0:
        raise ProfileError("compare needs at least 1 repeat, and 0 new tokens or more")
    sources = [source(text) for text in texts]
    if verify or key is not None:
        sources = _checked(sources, {"verify": verify, "key": key and str(key)})
    for path in (output and output.absolute().parent, save_traces):
        if path and not path.is_dir():
            raise ProfileError(f"there is no folder {path}; make it first")
    if output and importlib.util.find_spec("plotly") is None:
        raise ProfileError(
            "plotly is not installed; an HTML page needs it: pip install 'ingot[report]'"
        )
    traces = {i: readers.read_trace(s.path) for i, s in enumerate(sources) if s.kind == "trace"}
    live = {i: s for i, s in enumerate(sources) if s.kind != "trace"}
    if live:
        stored = next((t.header.request for t in traces.values() if t.header.request), {})
        ids = _tokens(list(live.values()), stored, prompt, tokens, prompt_tokens)
        new = stored.get("new_tokens", 16) if new_tokens is None else new_tokens
        request = Request(tuple(ids), new, threads)
        found = record(list(live.values()), request, repeats, progress)
        traces |= dict(zip(live, found, strict=True))
    ordered = [traces[i] for i in range(len(sources))]
    if save_traces:
        _save(ordered, sources, save_traces)
    result = compare(ordered, texts)
    if output:
        from ..profiling.comparison.page import page

        write_whole(output, page(result))
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result)


def source(text: str) -> Source:
    """What a source is. Raises ProfileError for one that is none, or needs what is not there."""
    path = Path(text)
    prefix, colon, target = text.partition(":")
    if path.is_dir():
        raise ProfileError(f"{text} is a folder; say what runs it, such as eager:{text}")
    if path.exists():
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        kind = "package" if zipped else "onnx" if path.suffix == ".onnx" else "trace"
        found = Source(text, kind, text)
    elif colon and prefix in KINDS.keys() - {"package"}:
        found = Source(text, prefix, target)
    elif colon and "/" not in prefix:
        known = ", ".join(f"{name}:" for name in KINDS if name != "package")
        raise ProfileError(f"'{prefix}:' is no engine; there are {known} packages and traces")
    else:
        raise ProfileError(f"there is no file {text}")
    if not found.path.exists():
        raise ProfileError(f"there is no {found.path}; '{text}' needs it")
    needed = KINDS.get(found.kind, Kind(""))
    if needed.library and importlib.util.find_spec(needed.library) is None:
        raise ProfileError(
            f"{needed.library} is not installed; '{text}' needs it: pip install {needed.install}"
        )
    return found


def _checked(sources: Sequence[Source], checks: Mapping[str, Any]) -> list[Source]:
    """With these checks of the packages among them. Raises ProfileError where they would say less
    than they seem to."""
    for one in sources:
        if one.kind == "onnx":
            raise ProfileError(f"--key and --verify are for packages, which {one.text} is not")
    if all(one.kind != "package" for one in sources):
        raise ProfileError("--key and --verify are for packages, and no source is one")
    return [replace(s, checks=checks) if s.kind == "package" else s for s in sources]


def record(
    sources: Sequence[Source],
    request: Request,
    repeats: int,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Trace]:
    """A trace of each source, whose header's `runs` are the untraced ones.

    Each starts and runs once before the next one starts, so that loading is measured alone. Then
    untraced runs take turns, A B A B, and traced ones after them.
    """
    with ExitStack() as stack:
        processes = []
        for one in sources:
            progress(f"{one.text}: starts, warms up")
            process = stack.enter_context(
                closing(Process(KINDS[one.kind].module, one.target, one.checks))
            )
            process.run(request, traced=False)
            processes.append(process)

        def turns(count: int, traced: bool) -> list[tuple[Trace, ...]]:
            rounds = []
            for number in range(1, count + 1):
                progress(f"{'traced' if traced else 'untraced'} run {number} of {count}")
                rounds.append([rested(process, traced) for process in processes])
            return list(zip(*rounds, strict=True))

        def rested(process: Process, traced: bool) -> Trace:
            time.sleep(_PAUSE_S)
            return process.run(request, traced)

        untraced = turns(repeats, traced=False)
        traced = turns(1 + _TRACED, traced=True)
    return [_one(plain, rest) for plain, (_, *rest) in zip(untraced, traced, strict=True)]


def _one(untraced: Sequence[Trace], traced: Sequence[Trace]) -> Trace:
    """The traced run with the median time, with the untraced ones' times and memory."""

    def length(trace: Trace) -> float:
        steps = median_run(trace)
        return steps[-1].end_us - steps[0].start_us if steps else 0.0

    chosen = sorted(traced, key=length)[(len(traced) - 1) // 2]
    last = untraced[-1].header
    header = replace(
        chosen.header,
        runs=[run for trace in untraced for run in trace.header.runs],
        start_up=last.start_up,
        memory=last.memory,
    )
    return replace(chosen, header=header)


def _tokens(
    live: list[Source],
    stored: dict[str, Any],
    prompt: str | None,
    tokens: str | None,
    prompt_tokens: int | None,
) -> list[int]:
    """The prompt: as asked, else that of a stored trace's request, else 32 tokens."""
    given = [option for option in (prompt, tokens, prompt_tokens) if option is not None]
    if len(given) > 1:
        raise ProfileError("give one of --prompt, --tokens and --prompt-tokens")
    if tokens is not None:
        return parse_tokens(tokens)
    if prompt is not None:
        return _encode(live, prompt)
    if not given and stored.get("tokens"):
        return [int(token) for token in stored["tokens"]]
    return made_up(32 if prompt_tokens is None else prompt_tokens, _vocab_size(live))


def _encode(live: list[Source], prompt: str) -> list[int]:
    """By the first source that has a tokenizer."""
    for one in live:
        if one.kind in ("package", "onnx"):
            package = load(one.path, **one.checks)
            if package.manifest["tokenizer"]:
                return list(package.encode(prompt))
        elif (one.path / "tokenizer.json").exists():
            from tokenizers import Tokenizer

            return list(Tokenizer.from_file(str(one.path / "tokenizer.json")).encode(prompt).ids)
    raise ProfileError("no source has a tokenizer; give --tokens instead of --prompt")


def _vocab_size(live: list[Source]) -> int:
    """The first that a source says."""
    for one in live:
        if one.kind in ("package", "onnx"):
            size = load(one.path, **one.checks).manifest["model"].get("vocab_size")
        else:
            config = read_json(one.path / "config.json")
            size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
        if isinstance(size, int) and size > 0:
            return size
    raise ProfileError("no source says how large its vocabulary is; give --tokens")


def _save(traces: list[Trace], sources: list[Source], folder: Path) -> None:
    names = engine_names([t.header for t in traces], [s.text for s in sources])
    for name, trace in zip(names, traces, strict=True):
        file = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
        write_whole(folder / f"{file}.json", json.dumps(trace.to_chrome()))


def _print(result: dict[str, Any]) -> None:
    from ..profiling.comparison.table import tables
    from ..profiling.terminal import console

    terminal = console()
    if not terminal.is_terminal:
        terminal.width = 160  # a file has no width; module paths are long
    for table in tables(result):
        terminal.print(table)

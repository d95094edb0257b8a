"""Reads a trace file, whoever wrote it: Ingot, torch.profiler or ONNX Runtime's profiler.

What a foreign profiler does not say stays empty in the header; a comparison passes over it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import ProfileError
from .trace import Event, Header, Trace, from_chrome, read_json

_PATH = re.compile(r"\w+(\.\w+)*")  # of a module: "model.layers.0.mlp"
_TORCH_STEP = re.compile(r"ProfilerStep#(\d+)")
_TORCH_MODULE = "nn.Module: "  # how torch.profiler names a module's Python frame
_PHASES = ("prefill", "decode")


def read_trace(path: Path) -> Trace:
    """Raises ProfileError for what is no trace."""
    document, where = read_json(path), str(path)
    try:
        if isinstance(document, dict) and "schemaVersion" in document:
            return _torch_profiler(_complete(document["traceEvents"]), where)
        if isinstance(document, list) and any(e.get("cat") == "Node" for e in document):
            return _onnxruntime(_complete(document), where)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        if isinstance(error, ProfileError):
            raise
        raise ProfileError(f"{where} is not a trace: an event is malformed ({error!r})") from error
    return from_chrome(document, where)


def _complete(events: list[dict[str, Any]]) -> list[Event]:
    """The complete events, of threads that are numbers."""
    return [
        Event.from_chrome(event)
        for event in events
        if event.get("ph") == "X" and isinstance(event.get("tid", 0), int)
    ]


def _torch_profiler(events: list[Event], where: str) -> Trace:
    """torch.profiler's export_chrome_trace: CPU ops, which nest, each with its self time.

    An op's module is the innermost record_function around it whose name is a module's path. Where
    there is none, the modules' Python frames (with_stack=True) are taken, which name classes:
    "Net_0.Mlp_1.Linear_2". Events of other threads than the modules' and of GPUs are left out.
    """
    known = [e for e in events if e.category in ("cpu_op", "user_annotation", "python_function")]
    marks = [e for e in known if _is_step(e)]
    scopes = [e for e in known if e.category == "user_annotation" and _scope(e) and e not in marks]
    if not scopes:
        scopes = [e for e in known if _scope(e) and e.category == "python_function"]
    ops = [e for e in known if e.category == "cpu_op"]
    if not ops:
        raise ProfileError(f"{where} is torch.profiler's, but has no CPU ops; record those as well")
    thread = (scopes or ops)[0].thread
    inside = sorted(
        (e for e in (*scopes, *ops) if e.thread == thread), key=lambda e: (e.start_us, -e.end_us)
    )
    return Trace(Header(engine="torch.profiler"), [*_torch_steps(marks, inside), *_pieces(inside)])


def _is_step(event: Event) -> bool:
    return event.category == "user_annotation" and bool(
        event.name in _PHASES or _TORCH_STEP.fullmatch(event.name)
    )


def _scope(event: Event) -> str:
    """The module's name that a range stands for, "" if it is none's."""
    if event.category == "user_annotation":
        return event.name if _PATH.fullmatch(event.name) else ""
    if event.category == "python_function" and event.name.startswith(_TORCH_MODULE):
        return event.name.removeprefix(_TORCH_MODULE)
    return ""


def _torch_steps(marks: list[Event], inside: list[Event]) -> Iterator[Event]:
    """Ranges named prefill and decode, or ProfilerStep#0; else the outermost modules' calls."""
    if not marks:
        frames = [e for e in inside if e.category == "python_function"]
        end = -1.0
        for frame in frames:
            if frame.start_us >= end:
                marks.append(frame)
                end = frame.end_us
    if not marks:
        start, end = inside[0].start_us, max(e.end_us for e in inside)
        marks = [Event("step", "step", start, end - start)]
    for number, mark in enumerate(sorted(marks, key=lambda e: e.start_us)):
        phase = {"phase": mark.name} if mark.name in _PHASES else {}
        args = {"step": number, **phase}
        yield Event("step", "step", mark.start_us, mark.duration_us, mark.thread, args)


def _pieces(nested: list[Event]) -> Iterator[Event]:
    """What nests, cut where the innermost changes: events that do not overlap."""
    open_: list[tuple[Event, str]] = []
    since = 0.0

    def piece(until: float) -> Iterator[Event]:
        if open_ and until > since:
            event, module = open_[-1]
            category = "op" if event.category == "cpu_op" else "host"
            args = {"module": module} if module else {}
            yield Event(event.name, category, since, until - since, event.thread, args)

    for event in nested:
        while open_ and open_[-1][0].end_us <= event.start_us:
            end = open_[-1][0].end_us
            yield from piece(end)
            open_.pop()
            since = end
        yield from piece(event.start_us)
        since = event.start_us
        outer = open_[-1][1] if open_ else ""
        name = _scope(event)
        if event.category == "python_function":
            name = ".".join(filter(None, (outer, name)))
        open_.append((event, name or outer))
    while open_:
        end = open_[-1][0].end_us
        yield from piece(end)
        open_.pop()
        since = end


_KERNEL_TIME = "_kernel_time"


def _onnxruntime(events: list[Event], where: str) -> Trace:
    """ONNX Runtime's profiler: a step for each model_run, a kernel for each node.

    The module is read from the node's name: what stands before the first slash, as in Ingot's own
    ONNX models (docs/onnx.md), or the whole path, as PyTorch's TorchScript-based exporter writes
    it: "/model/layers.0/mlp/down_proj/MatMul". Names of its newer exporter ("node_linear_3") tell
    no module.
    """
    runs = sorted((e for e in events if e.name == "model_run"), key=lambda e: e.start_us)
    if not runs:
        raise ProfileError(f"{where} is ONNX Runtime's, but has no model_run; it was cut off")
    steps = [
        Event("step", "step", run.start_us, run.duration_us, run.thread, {"step": number})
        for number, run in enumerate(runs)
    ]
    kernels = []
    for event in events:
        if event.category == "Node" and event.name.endswith(_KERNEL_TIME):
            node = event.name.removesuffix(_KERNEL_TIME).removeprefix("fused ")
            args = {"module": _module_of(node)} if "/" in node else {}
            name = str(event.args.get("op_name", node))
            kernels.append(
                Event(name, "kernel", event.start_us, event.duration_us, event.thread, args)
            )
    return Trace(Header(engine="onnxruntime"), [*steps, *kernels])


def _module_of(node: str) -> str:
    if not node.startswith("/"):
        return node.partition("/")[0]
    return node[1:].rpartition("/")[0].replace("/", ".")

"""`FILE.onnx`: ONNX Runtime, on a model that `ingot export --format onnx` made.

A run that is to be traced goes through a second session, with ONNX Runtime's own profiler: one
event a node. Node names begin with the module's path, and what the runtime fuses keeps the name of
one of its nodes at its front (docs/onnx.md), so the join is that path.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...child import serve
from ...profiling.engine import Request
from ...profiling.steps import Calls, Steps, sizes
from ...profiling.trace import Event, Header, Trace
from ..onnx_backend import OnnxPackage
from .common import FileEngine

_KERNEL = "_kernel_time"  # what the profiler adds to a node's name


class OnnxEngine(FileEngine):
    name = "onnx"
    package: OnnxPackage

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.header.environment = {"onnxruntime": version("onnxruntime")}

    def open(self) -> None:
        self.package = OnnxPackage(self.path, threads=self.threads)

    def record(self, request: Request, traced: bool) -> tuple[Trace, list[Event], dict[str, Any]]:
        steps, events = Steps(), list[Event]()
        if traced:
            events, result = self._traced(request, steps)
        else:
            result = self._steps(self.package, request, steps)
        return Trace(Header(), steps.events + events), steps.events, result

    def _steps(self, package: OnnxPackage, request: Request, steps: Steps) -> dict[str, Any]:
        """The run itself; returns the header's `result`."""
        if self.kind == "encoder":
            with steps.step(sizes(len(request.tokens), causal=False)):
                (hidden,) = package.hidden([request.tokens])
            return {"hidden": hidden.ravel().tolist()}
        tokens: list[int] = []
        fed, past = list(request.tokens), 0
        with package.session() as session:
            for number in range(max(request.new_tokens, 1)):
                with steps.step(sizes(len(fed), past)):
                    (logits,) = session.step(fed, [-1])
                    tokens.append(int(np.argmax(logits)))
                if number == 0:
                    after_prompt = logits.tolist()
                past, fed = past + len(fed), tokens[-1:]
        return {"tokens": tokens[: request.new_tokens], "logits": after_prompt}

    def _traced(self, request: Request, steps: Steps) -> tuple[list[Event], dict[str, Any]]:
        """The nodes' events too. ONNX Runtime compiles nothing, but it warms up: so does this."""
        with tempfile.TemporaryDirectory() as folder:
            package = OnnxPackage(
                self.path, threads=request.threads, profile=Path(folder) / "profile"
            )
            self._steps(package, request, Steps())
            calls = Calls()
            package.runtime.run = calls.timed(package.runtime.run)
            result = self._steps(package, request, steps)
            start_us = _monotonic_us(package.runtime.get_profiling_start_time_ns())
            recorded = json.loads(Path(package.runtime.end_profiling()).read_text())
        events = node_events(recorded, start_us, steps.events)
        for step in steps.events:
            inside = [event for event in events if event.args["step"] == step.args["step"]]
            events += calls.around(step, inside)
        return events, result


def _monotonic_us(start_ns: int) -> float:
    """On the steps' clock: ONNX Runtime documents the monotonic clock, 1.31 uses the wall clock."""
    wall_ns = time.time_ns() - time.monotonic_ns()
    return (start_ns - wall_ns if start_ns > wall_ns else start_ns) / 1e3


def node_events(recorded: list[dict[str, Any]], start_us: float, steps: list[Event]) -> list[Event]:
    """Kernel events of the nodes that ran within these steps, from ONNX Runtime's profile.

    start_us: when the profiler's clock began, on the steps' clock.
    """
    found = []
    for event in recorded:
        begun = start_us + event["ts"]
        if event.get("cat") != "Node" or not event["name"].endswith(_KERNEL):
            continue
        step = next((s for s in steps if s.start_us <= begun < s.end_us), None)
        if step is not None:
            found.append(_kernel(event, begun, step))
    return found


def _kernel(event: dict[str, Any], start_us: float, step: Event) -> Event:
    about = event["args"]
    inputs, outputs = _shapes(about["input_type_shape"]), _shapes(about["output_type_shape"])
    args = {
        "module": event["name"].partition("/")[0],
        "step": step.args["step"],
        "phase": step.args["phase"],
        "inputs": inputs,
        "outputs": outputs,
        "flops": _flops(about["op_name"], inputs, outputs, step.args["pairs"]),
        "read_bytes": int(about["activation_size"]) + _parameter_bytes(about, inputs, outputs),
        "written_bytes": int(about["output_size"]),
    }
    return Event(about["op_name"], "kernel", start_us, event["dur"], event["tid"], args)


def _shapes(facts: list[dict[str, list[int]]]) -> list[dict[str, Any]]:
    return [{"dtype": dtype, "shape": shape} for fact in facts for dtype, shape in fact.items()]


def _parameter_bytes(
    about: dict[str, Any], inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> int:
    """As the profiler says, but of a Gather the rows alone, and of a Gemm the float32 matrix that
    ONNX Runtime packed when it loaded: the profiler counts all of the first, nothing of the second.
    """
    if about["op_name"] == "Gather":
        return int(about["output_size"])
    if about["op_name"] == "Gemm" and about["parameter_size"] == "0":
        return 4 * int(inputs[0]["shape"][-1]) * int(outputs[0]["shape"][-1])
    return int(about["parameter_size"])


def _flops(
    operator: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], pairs: int
) -> int:
    """Of the operators that multiply matrices; 0 for all others."""
    width: int = inputs[0]["shape"][-1] if inputs and inputs[0]["shape"] else 0
    if operator in ("Gemm", "MatMulNBits"):
        return 2 * width * int(math.prod(outputs[0]["shape"]))
    if operator == "Attention":  # a product of q and k, and one of weights and v, for each pair
        return 4 * width * pairs
    return 0


if __name__ == "__main__":
    serve(OnnxEngine)

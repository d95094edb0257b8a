"""The engines and the settings in which they are compared: data, one line a setting."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ingot import native

HERE = Path(__file__).parent
CLASSES = ("bf16", "int8", "int4")


@dataclass(frozen=True)
class Engine:
    """worker(work dir): the command of protocol.py's worker. native: it is a C++ program."""

    title: str
    worker: Callable[[Path], list[str]]
    native: bool = False


def python(venv: str, script: str) -> Callable[[Path], list[str]]:
    """A worker of this folder in one of the setup's environments."""
    return lambda work: [str(work / "venvs" / venv / "bin/python"), str(HERE / script)]


ENGINES = {
    "ingot": Engine("Ingot", lambda _: [sys.executable, str(HERE / "ingot_worker.py")]),
    "llamacpp": Engine("llama.cpp", lambda work: [str(work / "llamacpp/worker")], native=True),
    "openvino": Engine("OpenVINO GenAI", python("openvino", "openvino_worker.py")),
    "ort": Engine("ONNX Runtime GenAI", python("ort", "ort_worker.py")),
    "torch": Engine("transformers, eager", python("torch", "torch_worker.py")),
}


@dataclass(frozen=True)
class Setting:
    """kind: the class of weights in which it competes. file: under the work directory. every: it
    takes part in every so many rounds, from the first."""

    engine: str
    precision: str
    kind: str
    file: str
    every: int = field(default=1, kw_only=True)

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}"

    def model(self, work: Path) -> Path:
        return work / self.file

    def worker(self, work: Path) -> list[str]:
        return ENGINES[self.engine].worker(work)

    def missing(self, work: Path) -> list[Path]:
        """What must be set up before it can run."""
        return [p for p in (Path(self.worker(work)[0]), self.model(work)) if not p.exists()]


# Those that compete stand side by side: a pass goes down this list.
SETTINGS = (
    Setting("ingot", "bf16", "bf16", "ingot/bf16.pt2"),
    Setting("llamacpp", "bf16", "bf16", "llamacpp/bf16.gguf"),
    Setting("openvino", "fp16 file", "bf16", "openvino/fp16"),
    Setting("torch", "bf16", "bf16", "model"),
    Setting("ingot", "int8", "int8", "ingot/int8.pt2"),
    Setting("ingot", "int8-a8", "int8", "ingot/int8-a8.pt2"),
    Setting("llamacpp", "Q8_0", "int8", "llamacpp/Q8_0.gguf"),
    Setting("openvino", "int8", "int8", "openvino/int8"),
    Setting("ort", "int8 g32", "int8", "ort/int8-g32"),
    Setting("ingot", "int4 g32", "int4", "ingot/int4-g32.pt2"),
    Setting("ingot", "int4-a8 g32", "int4", "ingot/int4-a8-g32.pt2"),
    Setting("llamacpp", "Q4_0", "int4", "llamacpp/Q4_0.gguf"),
    Setting("openvino", "int4 g32", "int4", "openvino/int4-g32"),
    Setting("ort", "int4 g32", "int4", "ort/int4-g32"),
    Setting("ingot", "int4 g128", "int4", "ingot/int4-g128.pt2"),
    Setting("ingot", "int4-a8 g128", "int4", "ingot/int4-a8-g128.pt2"),
    Setting("openvino", "int4 g128", "int4", "openvino/int4-g128"),
)


def cold_command(setting: Setting, work: Path, threads: int, prompt: list[int]) -> list[str]:
    """A fresh process that makes one token: the worker, but ingot-run for Ingot."""
    ids = ",".join(map(str, prompt))
    if setting.engine != "ingot":
        return warm_command(setting, work, threads, [(1, prompt)])
    program = [str(native.find("ingot-run")), str(setting.model(work)), "--json", "--ignore-eos"]
    return [
        *program,
        "--max-new-tokens=1",
        "--temperature=0",
        f"--threads={threads}",
        "--tokens",
        ids,
    ]


def warm_command(
    setting: Setting, work: Path, threads: int, requests: list[tuple[int, list[int]]]
) -> list[str]:
    asked = [f"{count}:{','.join(map(str, prompt))}" for count, prompt in requests]
    return [*setting.worker(work), str(setting.model(work)), str(threads), *asked]

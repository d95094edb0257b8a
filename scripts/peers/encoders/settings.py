"""The networks, the engines and the settings in which encoders are compared: data."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..engines import HERE, Engine, Setting, python

CLASSES = ("fp32", "bf16", "int8")
BATCHES = (1, 8)
NETWORKS = {
    "minilm": "MiniLM-L6's shape, sequences of 128 tokens",
    "vit": "ViT-B/16, images of 224 x 224",
}
ENGINES = {
    "ingot": Engine("Ingot", lambda _: [sys.executable, str(HERE / "encoders/ingot_worker.py")]),
    "ort": Engine("ONNX Runtime, fused", python("ort", "encoders/ort_worker.py")),
    "openvino": Engine("OpenVINO", python("openvino", "encoders/openvino_worker.py")),
    "compile": Engine("torch.compile, frozen", python("torch", "encoders/compile_worker.py")),
    "torch": Engine("transformers, eager", python("torch", "encoders/torch_worker.py")),
}


@dataclass(frozen=True)
class EncoderSetting(Setting):
    network: str

    @property
    def name(self) -> str:
        return f"{self.network} {super().name}"

    def worker(self, work: Path) -> list[str]:
        return ENGINES[self.engine].worker(work)

    def examples(self, work: Path) -> list[Path]:
        """For each batch the input, and the output of eager torch in float32."""
        return [work / f"encoders/models/{self.network}-{batch}.npz" for batch in BATCHES]

    def missing(self, work: Path) -> list[Path]:
        return super().missing(work) + [p for p in self.examples(work) if not p.exists()]


def _of(network: str) -> tuple[EncoderSetting, ...]:
    """torch.compile has nothing to load: each process compiles anew, so it takes fewer turns."""

    def of(engine: str, kind: str, file: str, every: int = 1) -> EncoderSetting:
        return EncoderSetting(engine, kind, kind, f"encoders/{file}", network, every=every)

    return (
        of("ingot", "fp32", f"ingot/{network}-fp32.pt2"),
        of("ort", "fp32", f"ort/{network}-fp32.onnx"),
        of("openvino", "fp32", f"openvino/{network}-fp32/model.xml"),
        of("compile", "fp32", f"models/{network}", every=4),
        of("torch", "fp32", f"models/{network}"),
        of("ingot", "bf16", f"ingot/{network}-bf16.pt2"),
        of("openvino", "bf16", f"openvino/{network}-fp32/model.xml"),
        of("compile", "bf16", f"models/{network}", every=4),
        of("torch", "bf16", f"models/{network}"),
        of("ingot", "int8", f"ingot/{network}-int8.pt2"),
        of("ort", "int8", f"ort/{network}-int8.onnx"),
        of("openvino", "int8", f"openvino/{network}-int8/model.xml"),
    )


SETTINGS = tuple(setting for network in NETWORKS for setting in _of(network))

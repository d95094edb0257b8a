"""ONNX Runtime, on what to_onnx.py wrote."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime
from protocol import Array, Call, serve


def load(model: str, precision: str, threads: int) -> Callable[[Array], Call]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: lambda: session.run(None, {"x": x})[0]


if __name__ == "__main__":
    serve(onnxruntime.__version__, load)

"""OpenVINO, on what to_openvino.py wrote, compiled for the input's shape.

Without a hint it would compute in bfloat16 where the CPU has it, what is float32 in the file too.
"""

from __future__ import annotations

from collections.abc import Callable

import openvino
from protocol import Array, Call, serve

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}  # int8: of what is not quantised


def load(model: str, precision: str, threads: int) -> Callable[[Array], Call]:
    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }

    def prepare(x: Array) -> Call:
        network = core.read_model(model)
        network.reshape(list(x.shape))
        request = core.compile_model(network, "CPU", options).create_infer_request()
        return lambda: request.infer([x], share_inputs=True)[0]

    return prepare


if __name__ == "__main__":
    serve(openvino.__version__.split("-")[0], load)

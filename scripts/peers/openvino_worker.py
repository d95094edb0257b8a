"""OpenVINO GenAI; see protocol.py. It keeps the prefixes it has seen: no prompt may come twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import openvino_genai
from protocol import Generate, serve


def about(model: str) -> dict[str, str]:
    network = openvino.Core().read_model(Path(model) / "openvino_model.xml")
    weights = [
        op
        for op in network.get_ops()
        if op.get_type_name() == "Constant" and "lm_head" in op.get_friendly_name()
    ]
    head = max(weights, key=lambda op: op.get_byte_size()).get_element_type().get_type_name()
    return {"version": openvino_genai.__version__, "head": head}


def load(model: str, threads: int) -> Generate:
    pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)

    def generate(prompt: list[int], count: int) -> tuple[list[int], list[float]]:
        config = openvino_genai.GenerationConfig(
            max_new_tokens=count, ignore_eos=True, do_sample=False, apply_chat_template=False
        )
        ids = np.array([prompt], dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(
            openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids))
        )
        result = pipeline.generate(inputs, config)
        first_s = result.perf_metrics.get_ttft().mean / 1000
        stamps_ms = list(result.perf_metrics.raw_metrics.m_new_token_times)
        times = [first_s + (stamp - stamps_ms[0]) / 1000 for stamp in stamps_ms]
        return [int(token) for token in result.tokens[0]], times

    return generate


if __name__ == "__main__":
    serve(about, load)

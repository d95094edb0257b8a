"""ONNX Runtime GenAI; see protocol.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime_genai
from protocol import Generate, serve, timed


def about(model: str) -> dict[str, str]:
    import onnx

    graph = onnx.load(Path(model) / "model.onnx", load_external_data=False).graph
    (head,) = (n for n in graph.node if "lm_head" in n.name and "MatMul" in n.op_type)
    bits = [a.i for a in head.attribute if a.name == "bits"]
    types = {w.name: onnx.TensorProto.DataType.Name(w.data_type) for w in graph.initializer}
    dtype = f"int{bits[0]}" if bits else types[head.input[1]].lower()
    return {"version": onnxruntime_genai.__version__, "head": dtype}


def load(model: str, threads: int) -> Generate:
    config = onnxruntime_genai.Config(model)
    options = {"session_options": {"intra_op_num_threads": threads}}
    config.overlay(json.dumps({"model": {"decoder": options}}))
    network = onnxruntime_genai.Model(config)

    def tokens(prompt: list[int], count: int) -> Iterator[int]:
        length = len(prompt) + count
        parameters = onnxruntime_genai.GeneratorParams(network)
        parameters.set_search_options(  # min_length: it does not stop at an end token
            do_sample=False, min_length=length, max_length=length, batch_size=1
        )
        generator = onnxruntime_genai.Generator(network, parameters)
        generator.append_tokens(np.array(prompt, dtype=np.int32))
        for _ in range(count):
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])

    return lambda prompt, count: timed(tokens(prompt, count))


if __name__ == "__main__":
    serve(about, load)

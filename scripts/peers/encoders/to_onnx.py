"""A checkpoint to ONNX, fused by ONNX Runtime's optimizer for transformers.

python to_onnx.py FOLDER FILE [int8]      int8: weights, and x while it runs, of the products
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import networks
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer


def fused(folder: str, output: str) -> None:
    network = networks.load(folder)
    config = network.inner.config
    # Any batch: the optimizer finds fewer patterns in a graph of fixed sizes.
    program = torch.onnx.export(
        network,
        (networks.example(config, 2),),
        input_names=["x"],
        output_names=["y"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    with tempfile.TemporaryDirectory() as temporary:
        plain = Path(temporary) / "plain.onnx"
        program.save(plain, external_data=False)
        optimizer.optimize_model(
            str(plain),
            model_type=config.model_type,
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=1,
        ).save_model_to_file(output)


def quantise(file: str) -> None:
    model = onnx.load(file)
    weights = {weight.name for weight in model.graph.initializer}
    # The quantiser transposes a Gemm's weight and then falls over the shape recorded beside it.
    kept = [info for info in model.graph.value_info if info.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    products = ["MatMul", "Gemm"]
    quantize_dynamic(model, file, weight_type=QuantType.QInt8, op_types_to_quantize=products)


if __name__ == "__main__":
    folder, output, *int8 = sys.argv[1:]
    fused(folder, output)
    if int8:
        quantise(output)

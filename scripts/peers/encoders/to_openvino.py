"""A checkpoint to OpenVINO's format, for any batch.

python to_openvino.py FOLDER OUTPUT_FOLDER [int8]   int8: quantised by NNCF, calibrated on one batch
"""

from __future__ import annotations

import sys
from pathlib import Path

import networks
import nncf
import openvino
import torch

if __name__ == "__main__":
    folder, output, *int8 = sys.argv[1:]
    network = networks.load(folder)
    x = networks.example(network.inner.config, 2)
    shapes = ({0: torch.export.Dim("batch")},)
    model = openvino.convert_model(torch.export.export(network, (x,), dynamic_shapes=shapes))
    if int8:
        data = nncf.Dataset([x.numpy()])
        model = nncf.quantize(model, data, subset_size=1, model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(model, Path(output) / "model.xml", compress_to_fp16=False)

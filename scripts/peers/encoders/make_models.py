"""Checkpoints of random weights, float32, and examples with what eager torch makes of them.

    python make_models.py FOLDER BATCH ...

FOLDER/minilm and FOLDER/vit, and FOLDER/NETWORK-BATCH.npz with arrays x and y (protocol.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

import networks
import numpy as np
import torch
import transformers


def save(config: transformers.PretrainedConfig, folder: Path) -> None:
    """Matrices and biases of 0.02, as the config initialises the former; norms near 1."""
    model = getattr(transformers, config.architectures[0])(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            norm = weight.ndim == 1 and name.endswith("weight")
            weight.copy_(1 + 0.1 * noise if norm else 0.02 * noise)
    model.save_pretrained(folder)


if __name__ == "__main__":
    folder, batches = Path(sys.argv[1]), [int(batch) for batch in sys.argv[2:]]
    for name, config in networks.CONFIGS.items():
        save(config, folder / name)
        network = networks.load(folder / name)
        for batch in batches:
            x = networks.example(config, batch)
            np.savez(folder / f"{name}-{batch}.npz", x=x.numpy(), y=network(x).numpy())

"""Ingot's own runtime, through Python."""

from __future__ import annotations

import numpy as np
from protocol import Array, Call, serve

import ingot


def inputs(x: Array) -> dict[str, Array]:
    """Of the package's graph; that of a text encoder is ragged over tokens."""
    if x.ndim == 4:
        return {"pixel_values": x}
    batch, length = x.shape
    return {
        "tokens": x.reshape(-1),
        "token_type_ids": np.zeros(x.size, np.int64),
        "positions": np.tile(np.arange(length), batch),
        "query_start": np.arange(batch + 1) * length,
    }


def prepare(package: ingot.Package, x: Array) -> Call:
    arrays = inputs(x)
    shape = (*x.shape, -1) if x.ndim == 2 else (len(x), -1)

    def call() -> Array:
        (out,) = package.run(**arrays).values()
        return out.reshape(shape)

    return call


if __name__ == "__main__":
    serve(
        ingot.__version__,
        lambda model, _, threads: lambda x: prepare(ingot.load(model, threads=threads), x),
    )

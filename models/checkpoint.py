"""A checkpoint folder in the Hugging Face layout: config.json and safetensors, one file or shards.

Tensors are read one at a time from the mapped file, so a checkpoint is never in memory twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .. import json_text
from .errors import CheckpointError, shortened
from .layers import PieceDtype

_FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def read_json(path: Path) -> dict[str, Any]:
    """Raises CheckpointError if the file is missing or no JSON object."""
    try:
        content = json_text.read(path)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing; give a checkpoint folder in the Hugging Face layout"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); take the original file") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object; take the original file")
    return content


def tensor_files(checkpoint: Path) -> dict[str, Path]:
    """Tensor name -> file that holds it. Raises CheckpointError for missing or damaged files."""
    index = checkpoint / "model.safetensors.index.json"
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise CheckpointError(f"{index} has no weight_map; take the original file")
        for file in shards.values():
            plain = isinstance(file, str) and file not in ("", "..") and Path(file).name == file
            if not plain or len(file) > 255:
                raise CheckpointError(
                    f"{index} names {shortened(file)}, which is no file beside it; take the"
                    " original file"
                )
        listed = {name: checkpoint / file for name, file in shards.items()}
        held = {path: set(_names(path)) for path in sorted(set(listed.values()))}
        for name, path in listed.items():
            if name not in held[path]:
                raise CheckpointError(f"{path} lacks tensor {name}, which {index.name} lists there")
        return listed
    path = checkpoint / "model.safetensors"
    return dict.fromkeys(_names(path), path)


# What checkpoints also come as, and what to do then.
_OTHER_FORMATS = {
    "*.safetensors": "the folder holds {}: copy the whole checkpoint, with its index",
    "*.bin": "{} is a pickle, which may run any code when it is read: take the checkpoint's"
    " safetensors, or convert it with transformers' save_pretrained",
    "*.gguf": "{} is of another layout: take the checkpoint that it was made from",
}


def _missing(path: Path) -> CheckpointError:
    for pattern, advice in _OTHER_FORMATS.items():
        found = [other.name for other in sorted(path.parent.glob(pattern)) if other.is_file()]
        if found:
            return CheckpointError(f"{path} is missing; {advice.format(found[0])}")
    return CheckpointError(f"{path} is missing; copy the whole checkpoint")


def _names(path: Path) -> list[str]:
    try:
        if not path.is_file():
            raise _missing(path)
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut short ({error}); copy the checkpoint again"
        ) from error


class TensorFiles:
    """Tensors by name, each read from its mapped file when it is asked for. Use it as a context."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._open: dict[Path, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> TensorFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()
        self._stack.close()

    def read(self, name: str, shape: tuple[int, ...], dtype: PieceDtype) -> Tensor:
        """The tensor, converted to a floating-point `dtype`; "float": as it is, if it is of one;
        None: as it is.

        Raises CheckpointError for another shape, or one that is not floating point but should be.
        """
        path = self._files[name]
        if path not in self._open:
            self._open[path] = self._stack.enter_context(safe_open(path, framework="pt"))
        tensor: Tensor = self._open[path].get_tensor(name)
        if dtype is not None and tensor.dtype not in _FLOATING:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{path}: tensor {name} is {kind}; a quantised checkpoint states how in its"
                " config.json, as quantization_config, which this one lacks"
            )
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{path}: tensor {name} is {tuple(tensor.shape)}, config.json wants {shape}"
            )
        return tensor.to(dtype) if isinstance(dtype, torch.dtype) else tensor

"""The torch backend: a package's own object in libtorch, in a child process, as an oracle.

A process holds one host. So the child imports torch, opens the torch host under the soname that the
object was linked against, and answers calls: lists of tokens in, logits out (child.py).
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from .. import native
from ..child import Child, serve
from .errors import BadInput, IngotError
from .package import read_manifest


class TorchPackage:
    """A package run by libtorch: one conversation with a decoder, or arrays through a module."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.manifest = read_manifest(path)
        name = f"{os.fspath(path)} in libtorch"
        self._child = Child(__name__, os.fspath(path), name, IngotError)

    def logits(self, tokens: Sequence[int]) -> Any:
        """Append tokens; float32 [len(tokens), vocab_size] after each. Raises IngotError."""
        return self._child.call("logits", list(tokens))

    def reset(self) -> None:
        self._child.call("reset")

    def run(self, **inputs: Any) -> dict[str, Any]:
        """As `Package.run`, for any package that is not a decoder's. Raises IngotError."""
        names = [fact["name"] for fact in self.manifest["graph"]["inputs"]]
        if set(names) != set(inputs):
            raise BadInput(f"the inputs are {', '.join(names)}; given are {', '.join(inputs)}")
        made = self._child.call("run", [inputs[name] for name in names])
        outputs = (fact["name"] for fact in self.manifest["graph"]["outputs"])
        return dict(zip(outputs, made, strict=True))

    def generate(self, tokens: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        """Greedy tokens after the prompt; stop ids do not stop."""
        fed = list(tokens)
        for _ in range(max_new_tokens):
            token = int(self.logits(fed)[-1].argmax())
            yield token
            fed = [token]

    def close(self) -> None:
        self._child.close()

    def __del__(self) -> None:
        if hasattr(self, "_child"):
            self.close()


class _Runner:
    """In the child: the object, its constants and one sequence's cache."""

    def __init__(self, path: str) -> None:
        import torch

        self.torch = torch
        ctypes.CDLL(str(native.find("torch/libingot_host.so.1")), mode=ctypes.RTLD_LOCAL)
        self.manifest = read_manifest(path)
        with zipfile.ZipFile(path) as archive, tempfile.NamedTemporaryFile(suffix=".so") as code:
            self._open_libraries(archive)
            code.write(archive.read(f"model/{self.manifest['variants'][0]['entry']}"))
            code.flush()
            self.runner = torch._C._aoti.AOTIModelContainerRunnerCpu(code.name, 1)
            self.weights = bytearray(archive.read("model/ingot/weights.bin"))
        names = self.runner.get_constant_names_to_original_fqns()
        self.constants = {name: self._constant(fqn) for name, fqn in names.items()}
        self.runner.update_constant_buffer(self.constants, False, False, True)
        if "kv_cache" in self.manifest:
            self.reset()

    def _open_libraries(self, archive: zipfile.ZipFile) -> None:
        """The user's own ops, before the code that calls them."""
        for entry in self.manifest.get("op_libraries", ()):
            with tempfile.NamedTemporaryFile(suffix=".so") as library:
                library.write(archive.read(f"model/{entry}"))
                library.flush()
                ctypes.CDLL(library.name, mode=ctypes.RTLD_LOCAL)

    def _constant(self, fqn: str) -> Any:
        fact = self.manifest["constants"][fqn]
        raw = self.torch.frombuffer(
            self.weights, dtype=self.torch.uint8, count=fact["nbytes"], offset=fact["offset"]
        )
        typed = raw.view(getattr(self.torch, fact["dtype"]))
        # A copy, because frombuffer's memory is aligned to 16 bytes and the ops want 64.
        return typed.as_strided(fact["shape"], fact["stride"]).clone()

    def reset(self) -> None:
        cache, model = self.manifest["kv_cache"], self.manifest["model"]
        self.block = cache["block_size"]
        self.blocks = -(-model["max_seq_len"] // self.block)
        shape = (self.blocks, cache["bytes_per_block"])
        self.cache = [
            self.torch.zeros(shape, dtype=self.torch.uint8) for _ in range(cache["num_layers"])
        ]
        self.length = 0

    def run(self, inputs: list[Any]) -> list[Any]:
        return [out.numpy() for out in self.runner.run([*map(self.torch.as_tensor, inputs)])]

    def logits(self, tokens: list[int]) -> Any:
        torch, count = self.torch, len(tokens)
        if self.length + count > self.blocks * self.block:
            raise ValueError("the prompt is too long for the package")
        positions = torch.arange(self.length, self.length + count)
        self.length += count
        (out,) = self.runner.run(
            [
                torch.tensor(tokens),
                positions,
                positions.clone(),  # one sequence: its blocks in order
                torch.tensor([0, count]),
                torch.tensor([self.length]),
                torch.tensor([self.length]),
                torch.arange(self.blocks)[None],
                torch.arange(count),
                *self.cache,
            ]
        )
        return out.numpy()


if __name__ == "__main__":
    serve(_Runner)

"""The torch backend: a package's own object in libtorch, in a child process, as an oracle.

A process holds one host. So the child imports torch, opens the torch host under the soname that the
object was linked against, and answers calls: lists of tokens in, logits out (child.py).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from .. import native
from ..child import Child, serve
from . import ops
from .errors import BadInput, BadPackage, IngotError
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


def choose_gpu_variant(
    variants: Sequence[dict[str, Any]], capability: tuple[int, int]
) -> dict[str, Any]:
    """The best for a GPU, as the lean runtime chooses. Raises BadPackage."""
    major, minor = capability
    # The minor version is one digit: sm_90, sm_103.
    fitting = [
        v
        for v in variants
        if divmod(int(v["gpu_architecture"][3:]), 10) in [(major, m) for m in range(minor + 1)]
    ]
    if not fitting:
        offered = " and ".join(variant["gpu_architecture"] for variant in variants)
        raise BadPackage(f"it is for {offered}, and this GPU is sm_{major}{minor}")
    return max(fitting, key=lambda variant: int(variant["gpu_architecture"][3:]))


def choose_variant(variants: Sequence[dict[str, Any]], level: str) -> dict[str, Any]:
    """The best for the level of the kernels, as the lean runtime chooses. Raises BadPackage."""
    # Levels are in the order of their names, x86-64-v4-amx among them.
    fitting = [v for v in variants if v["isa"].startswith("x86-64-v") and v["isa"] <= level]
    if not fitting:
        offered = ", ".join(variant["isa"] for variant in variants)
        raise BadPackage(f"it has code for {offered}, and this process runs {level}")
    return max(fitting, key=lambda variant: str(variant["isa"]))


class _Runner:
    """In the child: the object, its constants and one sequence's cache."""

    def __init__(self, path: str) -> None:
        import torch

        self.torch = torch
        self.manifest = read_manifest(path)
        self.device = self.manifest.get("device", "cpu")
        halves = ("host",) if self.device == "cpu" else ("host", "cuda")
        for half in halves:
            ctypes.CDLL(str(native.find(f"torch/libingot_{half}.so.1")), mode=ctypes.RTLD_LOCAL)
        with zipfile.ZipFile(path) as archive, tempfile.NamedTemporaryFile(suffix=".so") as code:
            self._open_libraries(archive)
            code.write(checked(archive, self.manifest, self._variant()["entry"]))
            code.flush()
            aoti = torch._C._aoti
            self.runner = (
                aoti.AOTIModelContainerRunnerCpu(code.name, 1)
                if self.device == "cpu"
                else aoti.AOTIModelContainerRunnerCuda(code.name, 1, "cuda")
            )
            self.weights = bytearray(archive.read("model/ingot/weights.bin"))
        names = self.runner.get_constant_names_to_original_fqns()
        self.constants = {name: self._constant(fqn) for name, fqn in names.items()}
        self.runner.update_constant_buffer(self.constants, False, False, True)
        if "kv_cache" in self.manifest:
            self.reset()

    def _variant(self) -> dict[str, Any]:
        variants = self.manifest["variants"]
        if self.device == "cpu":
            return choose_variant(variants, ops.level())
        return choose_gpu_variant(variants, self.torch.cuda.get_device_capability())

    def _open_libraries(self, archive: zipfile.ZipFile) -> None:
        """The user's own ops, before the code that calls them."""
        for entry in self.manifest.get("op_libraries", ()):
            with tempfile.NamedTemporaryFile(suffix=".so") as library:
                library.write(checked(archive, self.manifest, entry))
                library.flush()
                ctypes.CDLL(library.name, mode=ctypes.RTLD_LOCAL)

    def _constant(self, fqn: str) -> Any:
        fact = self.manifest["constants"][fqn]
        raw = self.torch.frombuffer(
            self.weights, dtype=self.torch.uint8, count=fact["nbytes"], offset=fact["offset"]
        )
        typed = raw.view(getattr(self.torch, fact["dtype"]))
        # A copy, because frombuffer's memory is aligned to 16 bytes and the ops want 64.
        return typed.as_strided(fact["shape"], fact["stride"]).clone().to(self.device)

    def reset(self) -> None:
        cache, model = self.manifest["kv_cache"], self.manifest["model"]
        self.block = cache["block_size"]
        self.blocks = -(-model["max_seq_len"] // self.block)
        shape = (self.blocks, cache["bytes_per_block"])
        self.cache = [
            self.torch.zeros(shape, dtype=self.torch.uint8, device=self.device)
            for _ in range(cache["num_layers"])
        ]
        self.length = 0

    def run(self, inputs: list[Any]) -> list[Any]:
        return [out.cpu().numpy() for out in self._run([*map(self.torch.as_tensor, inputs)])]

    def _run(self, inputs: list[Any]) -> list[Any]:
        return list(self.runner.run([tensor.to(self.device) for tensor in inputs]))

    def logits(self, tokens: list[int]) -> Any:
        torch, count = self.torch, len(tokens)
        if self.length + count > self.blocks * self.block:
            raise ValueError("the prompt is too long for the package")
        positions = torch.arange(self.length, self.length + count)
        self.length += count
        (out,) = self._run(
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
        return out.cpu().numpy()


def checked(archive: zipfile.ZipFile, manifest: dict[str, Any], entry: str) -> bytes:
    """Code, which is loaded only with the hash that the manifest states. Raises BadPackage."""
    data = archive.read(f"model/{entry}")
    if hashlib.sha256(data).hexdigest() != manifest["entries"].get(entry, {}).get("sha256"):
        raise BadPackage(f"{entry} does not have the hash that its manifest states; copy it again")
    return data


if __name__ == "__main__":
    serve(_Runner)

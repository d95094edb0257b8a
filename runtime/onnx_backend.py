"""ONNX models that `ingot export --format onnx` made, run by ONNX Runtime as packages are run.

Needs neither torch nor the C++ runtime. docs/onnx.md has the graphs' signatures.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import json_text
from .base import BasePackage
from .errors import BadInput, BadPackage, IngotError
from .onnx_session import OnnxSession

Array = np.ndarray[Any, Any]
_FORMAT_VERSION = 1
_BATCH_TOKENS = 4096  # of all texts in one run, padding too: bounds temporaries


class OnnxPackage(BasePackage):
    """A model.onnx with what lies beside it; see `ingot.load`."""

    def __init__(
        self, path: str | os.PathLike[str], *, threads: int = 0, profile: Path | None = None
    ) -> None:
        """threads 0: the cores this process may use. profile: how the file begins that ONNX
        Runtime's profiler writes when `end_profiling` is called. Raises BadInput, BadPackage, or
        IngotError where ONNX Runtime is missing.
        """
        self.path = os.fspath(path)
        self.runtime = _open(self.path, threads, profile)
        self.manifest = _manifest(self.runtime, self.path)

    def session(self) -> OnnxSession:
        if self.manifest["model"]["kind"] != "decoder":
            raise BadInput(f"{self.path} is no decoder's; it generates nothing")
        return OnnxSession(self)

    def run(self, **inputs: Any) -> dict[str, Array]:
        if self.manifest["model"]["kind"] == "decoder":
            raise BadInput(f"{self.path} is a decoder's; make a session to generate with it")
        names = [fact["name"] for fact in self.manifest["graph"]["inputs"]]
        if set(names) != set(inputs):
            raise BadInput(f"the inputs are {', '.join(names)}; given are {', '.join(inputs)}")
        return self.call(inputs)

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Once through the graph. Raises BadInput with ONNX Runtime's complaint."""
        outputs = [fact["name"] for fact in self.manifest["graph"]["outputs"]]
        try:
            made = self.runtime.run(outputs, {k: np.asarray(v) for k, v in inputs.items()})
        except Exception as error:  # its own kinds share no base class but this
            raise BadInput(f"{self.path} does not take these inputs: {_reason(error)}") from error
        return dict(zip(outputs, made, strict=True))

    def embed_tokens(self, sequences: Sequence[Sequence[int]]) -> Array:
        how, model = self.manifest["embedding"], self.manifest["model"]
        check_ids((t for tokens in sequences for t in tokens), model["vocab_size"])
        rows: list[Array] = []
        while len(rows) < len(sequences):
            rest = sequences[len(rows) :]
            longest, count = 0, 0
            for tokens in rest:
                longest = max(longest, len(tokens))
                if count and longest * (count + 1) > _BATCH_TOKENS:
                    break
                count += 1
            rows += [_pool(hidden, how) for hidden in self.hidden(rest[:count])]
        return np.array(rows, np.float32).reshape(len(rows), model["hidden_size"])

    def hidden(self, sequences: Sequence[Sequence[int]]) -> list[Array]:
        """An encoder's last hidden state of each sequence, float32 [tokens, hidden_size]."""
        longest = max(map(len, sequences))
        ids = np.zeros((len(sequences), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(sequences):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        made = self.call(
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        )
        hidden = made["last_hidden_state"]
        return [hidden[row, : len(tokens)] for row, tokens in enumerate(sequences)]

    def entry(self, name: str) -> bytes:
        if not self.has_entry(name):
            raise BadInput(f"{self.path} has no {name}")
        path = Path(f"{self.path}.{Path(name).name}")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadPackage(
                f"cannot read {path}: {error.strerror}; it belongs to {self.path}"
            ) from error
        if hashlib.sha256(data).hexdigest() != self.manifest["entries"][name]["sha256"]:
            raise BadPackage(f"{path} is not the one that {self.path} was exported with")
        return data

    def token_bytes(self, token: int) -> bytes:
        table = self._token_table
        return table[token] if token < len(table) else b""

    @cached_property
    def _token_table(self) -> list[bytes]:
        """As docs/format.md has it; empty without a tokenizer."""
        if not self.manifest["tokenizer"]:
            return []
        data = self.entry("ingot/token_bytes.bin")
        (count,) = struct.unpack_from("<I", data)
        offsets = struct.unpack_from(f"<{count + 1}I", data, 4)
        pieces = data[4 * (count + 2) :]
        return [pieces[a:b] for a, b in zip(offsets, offsets[1:], strict=False)]


def check_ids(tokens: Any, vocab_size: int) -> None:
    """Raises BadInput for a token id that the model does not have."""
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise BadInput(
                f"token id {token} is out of range; the model has ids 0 to {vocab_size - 1}"
            )


def _open(path: str, threads: int, profile: Path | None) -> Any:
    """ONNX Runtime's session, on the GPU where it and its library are there."""
    try:
        import onnxruntime
    except ImportError as error:
        raise IngotError(
            "ONNX models need ONNX Runtime, which is not installed: pip install 'ingot[onnx]'"
        ) from error
    try:
        Path(path).open("rb").close()
    except OSError as error:
        raise BadInput(f"cannot open {path}: {error.strerror}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, os.fspath(profile)
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # its own kinds share no base class but this
        raise BadPackage(f"ONNX Runtime cannot open {path}: {_reason(error)}") from error


def _manifest(runtime: Any, path: str) -> dict[str, Any]:
    text = runtime.get_modelmeta().custom_metadata_map.get("ingot")
    if text is None:
        raise BadPackage(f"{path} was not made by Ingot; export with ingot export --format onnx")
    try:
        manifest: dict[str, Any] = json_text.parse(text)
        version = manifest["format_version"]
    except (ValueError, LookupError, TypeError) as error:
        raise BadPackage(
            f"the manifest of {path} cannot be read ({error}); export again"
        ) from error
    if version != _FORMAT_VERSION:
        raise BadPackage(
            f"{path} has format {version}, this version reads {_FORMAT_VERSION}; export it again"
        )
    return manifest


def _reason(error: Exception) -> str:
    """ONNX Runtime's first line, without its own numbering: "[ONNXRuntimeError] : 7 : KIND : "."""
    first = str(error).strip().splitlines()[0]
    return first.split(" : ", 3)[-1] if first.startswith("[ONNXRuntimeError]") else first


def _pool(hidden: Array, how: Mapping[str, Any]) -> Array:
    """hidden [tokens, size] to one embedding, as csrc/embed.cpp: sums in float64."""
    values = hidden.astype(np.float64)
    match how["pooling"]:
        case "cls":
            pooled = values[0]
        case "max":
            pooled = values.max(0)
        case "mean":
            pooled = values.sum(0) / len(values)
        case "mean_sqrt_len":
            pooled = values.sum(0) / len(values) ** 0.5
    result: Array = pooled.astype(np.float32)
    if how["normalize"]:
        result /= np.float32(max(float(np.linalg.norm(result.astype(np.float64))), 1e-12))
    return result

"""A package, opened: its manifest, its tokenizer, and sessions over one copy of the weights."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import capi
from .base import BasePackage
from .session import Session

if TYPE_CHECKING:
    import numpy as np

    from .arrays import Signature


class Package(BasePackage):
    """Immutable and shared by its sessions; see `ingot.load`. Sessions keep their package alive.

    Any thread may use it, several at once: a session serves one call at a time, a package any
    number. Its steps run one after the other.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 0,
        kv_tokens: int = 0,
        verify: bool = False,
        key: str | os.PathLike[str] | None = None,
        copy_weights: bool = False,
    ) -> None:
        """Raises BadInput, BadPackage or NoSpace, with a sentence."""
        self.path = os.fspath(path)
        self.handle = ctypes.c_void_p()
        options = capi.Options(
            threads=threads,
            kv_tokens=kv_tokens,
            verify_weights=verify or key is not None,
            copy_weights=copy_weights,
            manifest_sha256=None if key is None else _signed_by(key, self.path),
        )
        library = capi.library()
        capi.check(
            library.ingot_package_open(
                os.fsencode(self.path), ctypes.byref(options), ctypes.byref(self.handle)
            )
        )
        self.manifest: dict[str, Any] = json.loads(library.ingot_package_manifest(self.handle))
        self.variant = library.ingot_package_variant(self.handle).decode()

    def session(self) -> Session:
        return Session(self)

    def run(self, **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Arrays by input name to arrays by output name, once through the graph.

        numpy arrays, lists of numbers, or anything with DLPack, such as a CPU torch tensor. For
        packages that are not decoders'. Raises BadInput, naming the input that does not fit.
        """
        from .arrays import run

        return run(self, inputs)

    @cached_property
    def signature(self) -> Signature:
        """Of `run`."""
        from .arrays import Signature

        return Signature.of(self)

    def embed_tokens(self, sequences: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
        import numpy as np

        out = np.empty((len(sequences), self.manifest["model"]["hidden_size"]), np.float32)
        lengths = (ctypes.c_size_t * len(sequences))(*map(len, sequences))
        tokens = capi.int64_array([token for sequence in sequences for token in sequence])
        pointer = ctypes.c_void_p(out.ctypes.data)
        capi.check(
            capi.library().ingot_embed(self.handle, tokens, lengths, len(sequences), pointer)
        )
        return out

    def entry(self, name: str) -> bytes:
        """A copy of one archive entry, such as "ingot/report.json". Raises BadInput if absent."""
        data, size = ctypes.c_void_p(), ctypes.c_size_t()
        capi.check(
            capi.library().ingot_package_entry(
                self.handle, name.encode(), ctypes.byref(data), ctypes.byref(size)
            )
        )
        return ctypes.string_at(data, size.value)

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; none for special ones and without a tokenizer."""
        if not self.manifest["tokenizer"]:
            return b""
        data, size = ctypes.POINTER(ctypes.c_char)(), ctypes.c_size_t()
        capi.check(
            capi.library().ingot_package_token_bytes(
                self.handle, token, ctypes.byref(data), ctypes.byref(size)
            )
        )
        return ctypes.string_at(data, size.value)

    def measure_read(self, max_bytes: int) -> float:
        """GB/s at which the weights stream from memory, with all threads."""
        return float(capi.library().ingot_measure_read(self.handle, max_bytes))

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            capi.library().ingot_package_close(self.handle)


def _signed_by(key: str | os.PathLike[str], path: str) -> bytes:
    """The manifest's hash, which the library holds against what it opens: the file may become
    another one in between."""
    from .verification import signed_manifest

    return signed_manifest(Path(path), Path(key)).encode()


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a package, without loading its code: whatever its ISA level."""
    text, library = ctypes.c_void_p(), capi.library()
    capi.check(library.ingot_read_manifest(os.fsencode(path), ctypes.byref(text)))
    try:
        manifest: dict[str, Any] = json.loads(ctypes.string_at(text))
        return manifest
    finally:
        library.ingot_free(text)

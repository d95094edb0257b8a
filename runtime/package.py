"""A package, opened: its manifest, its tokenizer, and sessions over one copy of the weights."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from . import capi
from .errors import BadInput
from .session import Piece, Session

if TYPE_CHECKING:
    import numpy as np


class Package:
    """Immutable and shared by its sessions; see `ingot.load`. Sessions keep their package alive."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 0,
        kv_tokens: int = 0,
        verify: bool = False,
    ) -> None:
        """Raises BadInput, BadPackage or NoSpace, with a sentence."""
        self.path = os.fspath(path)
        self.handle = ctypes.c_void_p()
        options = capi.Options(threads=threads, kv_tokens=kv_tokens, verify_weights=verify)
        library = capi.library()
        capi.check(
            library.ingot_package_open(
                os.fsencode(self.path), ctypes.byref(options), ctypes.byref(self.handle)
            )
        )
        self.manifest: dict[str, Any] = json.loads(library.ingot_package_manifest(self.handle))

    def session(self) -> Session:
        return Session(self)

    def generate(self, prompt: str | Sequence[int], **options: Any) -> Iterator[Piece]:
        """Generate in a session of its own; the options are those of `Session.generate`."""
        with self.session() as session:
            yield from session.generate(prompt, **options)

    def run(self, **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Arrays by input name to arrays by output name, once through the graph.

        numpy arrays, lists of numbers, or anything with DLPack, such as a CPU torch tensor. For
        packages that are not decoders'. Raises BadInput, naming the input that does not fit.
        """
        from .arrays import run

        return run(self, inputs)

    def embed(self, texts: str | Sequence[str]) -> np.ndarray[Any, Any]:
        """Sentence embeddings, float32 [len(texts), hidden_size]; one text is a list of one.

        A text longer than the package's `max_tokens` is cut there. Raises BadInput if the package
        is no text encoder's.
        """
        import numpy as np

        if "embedding" not in self.manifest:
            raise BadInput(f"{self.path} is not an encoder's package; it makes no embeddings")
        ids = self._encode_for_embedding([texts] if isinstance(texts, str) else list(texts))
        out = np.empty((len(ids), self.manifest["model"]["hidden_size"]), np.float32)
        lengths = (ctypes.c_size_t * len(ids))(*map(len, ids))
        tokens = capi.int64_array([token for sequence in ids for token in sequence])
        pointer = ctypes.c_void_p(out.ctypes.data)
        capi.check(capi.library().ingot_embed(self.handle, tokens, lengths, len(ids), pointer))
        return out

    def _encode_for_embedding(self, texts: list[str]) -> list[list[int]]:
        for text in texts:
            _check_text(text)
        self.tokenizer.no_padding()  # the graph is ragged
        self.tokenizer.enable_truncation(self.manifest["embedding"]["max_tokens"])
        return [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]

    def classify(self, image: Any) -> list[tuple[str, float]]:
        """Labels and their probabilities, likeliest first, of a path or a `PIL.Image`.

        The image is resized, cropped and scaled as the checkpoint's preprocessor_config.json says.
        Needs Pillow (`ingot[vision]`). Raises BadInput for what is no image.
        """
        from .image import classify

        return classify(self, image)

    def entry(self, name: str) -> bytes:
        """A copy of one archive entry, such as "ingot/report.json". Raises BadInput if absent."""
        data, size = ctypes.c_void_p(), ctypes.c_size_t()
        capi.check(
            capi.library().ingot_package_entry(
                self.handle, name.encode(), ctypes.byref(data), ctypes.byref(size)
            )
        )
        return ctypes.string_at(data, size.value)

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer (`tokenizers.Tokenizer`). Raises BadInput if it had none."""
        if not self.manifest["tokenizer"]:
            raise BadInput(f"{self.path} has no tokenizer; give token ids instead of text")
        from tokenizers import Tokenizer

        return Tokenizer.from_buffer(self.entry("ingot/tokenizer.json"))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that the tokenizer adds.

        Raises BadInput for a text that is no Unicode, as bytes from a command line may not be.
        """
        _check_text(text)
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def apply_chat_template(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt that a conversation becomes: messages have `role` and `content`.

        The checkpoint's own template, run in a sandbox. Raises BadInput if it has none or refuses.
        """
        from .chat import render

        return render(self, messages)

    def has_entry(self, name: str) -> bool:
        return name in self.manifest["entries"]

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


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput("the text is not valid UTF-8; give it in that encoding") from error


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a package, without loading its code: whatever its ISA level."""
    text, library = ctypes.c_void_p(), capi.library()
    capi.check(library.ingot_read_manifest(os.fsencode(path), ctypes.byref(text)))
    try:
        manifest: dict[str, Any] = json.loads(ctypes.string_at(text))
        return manifest
    finally:
        library.ingot_free(text)

"""What packages share, whatever runs them: tokenizer, chat template, texts and images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .errors import BadInput, BadPackage, IngotError

if TYPE_CHECKING:
    import numpy as np

    from .base_session import BaseSession, Piece


class BasePackage(ABC):
    """manifest: what the package says of itself (docs/format.md). variant: the name of the code
    that was loaded, "x86-64-v3"; None where there is none to choose."""

    path: str
    variant: str | None = None
    manifest: dict[str, Any]

    @abstractmethod
    def session(self) -> BaseSession:
        """A new conversation. Raises BadInput if the package is no decoder's."""

    @abstractmethod
    def run(self, **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Arrays by input name to arrays by output name. Raises BadInput."""

    @abstractmethod
    def embed_tokens(self, sequences: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
        """Embeddings of an encoder's token ids, float32 [len(sequences), hidden_size]."""

    @abstractmethod
    def entry(self, name: str) -> bytes:
        """A copy of one entry, such as "ingot/tokenizer.json". Raises BadInput if absent."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; none for special ones and without a tokenizer."""

    def generate(self, prompt: str | Sequence[int], **options: Any) -> Iterator[Piece]:
        """Generate in a session of its own; the options are those of `BaseSession.generate`."""
        with self.session() as session:
            yield from session.generate(prompt, **options)

    def embed(self, texts: str | Sequence[str]) -> np.ndarray[Any, Any]:
        """Sentence embeddings, float32 [len(texts), hidden_size]; one text is a list of one.

        A text longer than the package's `max_tokens` is cut there. Raises BadInput if the package
        is no text encoder's.
        """
        if "embedding" not in self.manifest:
            raise BadInput(f"{self.path} is not an encoder's package; it makes no embeddings")
        sequences = self._encode_for_embedding([texts] if isinstance(texts, str) else list(texts))
        return self.embed_tokens(sequences)

    def _encode_for_embedding(self, texts: list[str]) -> list[list[int]]:
        for text in texts:
            _check_text(text)
        tokenizer = self._embedding_tokenizer
        with self._refusing("tokenizer fails on these texts"):
            return [encoding.ids for encoding in tokenizer.encode_batch(texts)]

    def classify(self, image: Any) -> list[tuple[str, float]]:
        """Labels and their probabilities, likeliest first, of a path or a `PIL.Image`.

        The image is resized, cropped and scaled as the checkpoint's preprocessor_config.json says.
        Needs Pillow (`ingot[vision]`). Raises BadInput for what is no image.
        """
        from .image import classify

        return classify(self, image)

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer (`tokenizers.Tokenizer`), which neither cuts nor pads texts.

        Raises BadInput if it had none, BadPackage if it is damaged.
        """
        return self._read_tokenizer()

    @cached_property
    def _embedding_tokenizer(self) -> Any:
        """One that cuts texts for `embed`. Its own: `encode` does not, and threads use both."""
        tokenizer = self._read_tokenizer()
        tokenizer.enable_truncation(self.manifest["embedding"]["max_tokens"])
        return tokenizer

    def _read_tokenizer(self) -> Any:
        if not self.manifest["tokenizer"]:
            raise BadInput(f"{self.path} has no tokenizer; give token ids instead of text")
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_buffer(self.entry("ingot/tokenizer.json"))
        except ValueError as error:
            raise BadPackage(
                f"the tokenizer.json of {self.path} cannot be read ({error}); export it again from"
                " a checkpoint whose tokenizer works"
            ) from error
        tokenizer.no_truncation()  # as the file may say, for training
        tokenizer.no_padding()
        return tokenizer

    @contextmanager
    def _refusing(self, what: str) -> Iterator[None]:
        """The tokenizer is a stranger's: what its library fails with becomes a BadInput.

        A pattern that would search for ever ends in a panic of the library's, which Python sees as
        an exception that is none of `Exception`'s.
        """
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            if isinstance(error, IngotError):
                raise
            raise BadInput(f"{self.path}: its {what} ({error})") from error

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that the tokenizer adds.

        Raises BadInput for a text that is no Unicode, as bytes from a command line may not be.
        """
        _check_text(text)
        tokenizer = self.tokenizer
        with self._refusing("tokenizer fails on this text"):
            ids: list[int] = tokenizer.encode(text).ids
        return ids

    def apply_chat_template(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt that a conversation becomes: messages have `role` and `content`.

        The checkpoint's own template, run in a sandbox. Raises BadInput if it has none or refuses.
        """
        from .chat import render

        return render(self, messages)

    def has_entry(self, name: str) -> bool:
        return name in self.manifest["entries"]


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput("the text is not valid UTF-8; give it in that encoding") from error

"""Text from tokens as they come: a piece is given out only when its bytes are whole characters."""

from __future__ import annotations

import codecs


class Utf8Stream:
    """Joins tokens' bytes into text. A character split over tokens waits for its last byte."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: an unfinished character as U+FFFD."""
        return self._decoder.decode(b"", final=True)

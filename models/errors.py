"""What the loader refuses, in one sentence: what, where, what to do."""

from __future__ import annotations

import reprlib


class CheckpointError(ValueError):
    """The checkpoint cannot be used; the message is for the user. The command line exits with 2."""


def shortened(value: object) -> str:
    """A value of a file, as a sentence can hold it: one line, and not a long one."""
    return reprlib.repr(value)

"""What the loader refuses, in one sentence: what, where, what to do."""

from __future__ import annotations


class CheckpointError(ValueError):
    """The checkpoint cannot be used; the message is for the user. The command line exits with 2."""

"""What export refuses, in one sentence: what, where, what to do."""

from __future__ import annotations


class ExportError(ValueError):
    """The export cannot go on; its message is for the user. The command line exits with code 2."""

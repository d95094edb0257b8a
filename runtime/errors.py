"""What the runtime refuses, in one sentence each. The command line exits with code 2 for them."""

from __future__ import annotations


class IngotError(Exception):
    """Anything the runtime reports; its message is for the user."""


class BadInput(IngotError):
    """The caller's argument: a token out of range, a prompt too long, no such file."""


class BadPackage(IngotError):
    """The package: damaged, too new, for another ISA level, calling an op we lack."""


class NoSpace(IngotError):
    """No KV blocks or no memory left."""


def reason(error: Exception) -> str:
    """What went wrong, without the number and the file's name that an OSError's own text adds."""
    return getattr(error, "strerror", None) or str(error)

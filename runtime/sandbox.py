"""Jinja templates of strangers: in Jinja's immutable sandbox, and within bounds.

The sandbox keeps a template from Python's own objects. It does not keep it from looping for ever or
from asking for a number of a billion digits: that is bounded here. What a template may take of
memory is not bounded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jinja2 import Environment
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_STEPS = 10_000_000  # lines of Python that run: seconds
MOST_CHARACTERS = 1 << 26  # of the result, and of a text or list that is multiplied
_MOST_BITS = 4096  # of a product or power


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "**" and numbers and left.bit_length() * right > _MOST_BITS:
            raise OverflowError("a power has too many digits")
        if operator == "*" and numbers and left.bit_length() + right.bit_length() > _MOST_BITS:
            raise OverflowError("a product has too many digits")
        if operator == "*" and not numbers:
            text, times = (right, left) if isinstance(left, int) else (left, right)
            if hasattr(text, "__len__") and len(text) * times > MOST_CHARACTERS:
                raise OverflowError("a product is too long")
        return super().call_binop(context, operator, left, right)


def environment() -> Environment:
    """As `transformers` sets it up for chat templates."""
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    made.filters["tojson"] = lambda value, **options: json.dumps(value, **options)
    return made


def render(text: str, variables: Mapping[str, Any]) -> str:
    """Raises what the template raises, jinja2.TemplateError among it, and OverflowError for one
    that would take too long or write too much."""
    template, pieces, left = environment().from_string(text), list[str](), MOST_CHARACTERS
    with _bounded():
        for piece in template.generate(variables):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise OverflowError(f"it writes more than {MOST_CHARACTERS} characters")
    return "".join(pieces)


@contextmanager
def _bounded() -> Iterator[None]:
    """Python's tracing counts what runs in this thread; a debugger's is back at the end."""
    left, before = MOST_STEPS, sys.gettrace()

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OverflowError("it runs for too long")
        return count

    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)

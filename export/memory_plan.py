"""What a compiled graph allocates in one run, as Inductor planned it, read from its wrapper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sympy

from .provenance import symbols

_LINE = re.compile(
    r"empty_strided\(.*&(?P<allocated>buf\d+)_handle"
    r"|RAIIAtenTensorHandle (?P<given>buf\d+)\(buf\d+_handle\)"
    r"|auto (?P<again>buf\d+) = .*?(?P<before>buf\d+).*// reuse"
    r"|(?P<freed>buf\d+)\.reset\(\)"
)
_LONG = 512


def memory_plan(
    wrapper: str, buffers: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """allocations: tensors for kernels to write; results: those that ops make; reuses: allocations
    that another's memory served; bytes: of the first two together; peak_bytes: of those that live
    at once where they are most in an `example` step, 512 of the first input's first size, else one.

    buffers: bytes of each, sympy. inputs: the contract's. Bytes are formulas of its letters.
    """
    letters = [str(symbol) for fact in inputs for size in fact["shape"] for symbol in symbols(size)]
    example = {letter: _LONG if letter == letters[0] else 1 for letter in letters}
    live: dict[str, _Size] = {}
    peak, allocated, counts = _Size(), _Size(), dict.fromkeys(_KINDS, 0)
    for line in _LINE.finditer(wrapper):
        if name := line["allocated"]:
            counts["allocations"] += 1
        elif name := line["again"]:
            live[name] = live.pop(line["before"], _Size())
            counts["reuses"] += 1
            continue
        elif name := line["freed"]:
            live.pop(name, None)
            continue
        elif (name := line["given"]) in live:
            continue  # its memory was counted when it was made
        else:
            counts["results"] += 1
        formula = sympy.sympify(buffers.get(name, 0))
        live[name] = _Size((formula,), int(formula.subs(example)))
        allocated = _total((allocated, live[name]))
        peak = max(peak, _total(live.values()), key=lambda size: size.in_example)
    return {
        **counts,
        "bytes": str(sum(allocated.formulas)),
        "peak_bytes": str(sum(peak.formulas)),
        "example": example,
    }


_KINDS = ("allocations", "results", "reuses")


class _Size(NamedTuple):
    """Bytes as a sum of formulas, which is slow to simplify, and in the example."""

    formulas: tuple[Any, ...] = ()
    in_example: int = 0


def _total(sizes: Iterable[_Size]) -> _Size:
    parts = list(sizes)
    formulas = tuple(formula for part in parts for formula in part.formulas)
    return _Size(formulas, sum(part.in_example for part in parts))

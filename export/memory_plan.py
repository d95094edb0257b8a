"""What a compiled graph allocates in one run, as Inductor planned it, read from its wrapper."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sympy

from .provenance import symbols
from .repeated import NAME

_LINE = re.compile(
    r"empty_strided\(.*&(?P<allocated>buf\d+)_handle"
    r"|RAIIAtenTensorHandle (?P<given>buf\d+)\(buf\d+_handle\)"
    r"|auto (?P<again>buf\d+) = .*?(?P<before>buf\d+).*// reuse"
    r"|(?P<freed>buf\d+)\.reset\(\)"
    rf"|ERROR_CODE_CHECK\((?P<blocks>aoti_torch_\w+_{NAME}\(.*)"
)
_LONG = 512


class Wrapper(NamedTuple):
    """C++ that runs a graph, and the bytes of its buffers, sympy."""

    text: str
    buffers: Mapping[str, Any]


def memory_plan(
    wrapper: Wrapper, blocks: Sequence[Wrapper], inputs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """allocations: tensors for kernels to write; results: those that ops make; reuses: allocations
    that another's memory served; bytes: of the first two together; peak_bytes: of those that live
    at once where they are most in an `example` step, 512 of the first input's first size, else one.

    blocks: those that the wrapper runs as one op, in their order. inputs: the contract's. Bytes are
    formulas of its letters.
    """
    letters = [str(symbol) for fact in inputs for size in fact["shape"] for symbol in symbols(size)]
    example = {letter: _LONG if letter == letters[0] else 1 for letter in letters}
    of_kinds = {block.text: _plan(block, [], example) for block in blocks}
    found = _plan(wrapper, [of_kinds[block.text] for block in blocks], example)
    return {
        **found.counts,
        "bytes": str(found.allocated.formula),
        "peak_bytes": str(found.peak.formula),
        "example": example,
    }


def _plan(wrapper: Wrapper, blocks: Sequence[_Plan], example: Mapping[str, int]) -> _Plan:
    live: dict[str, _Size] = {}
    plan = _Plan(dict.fromkeys(_KINDS, 0))
    of_blocks: set[str] = set()  # what they return, which they count
    for line in _LINE.finditer(wrapper.text):
        if name := line["allocated"]:
            plan.counts["allocations"] += 1
        elif name := line["again"]:
            live[name] = live.pop(line["before"], _Size())
            plan.counts["reuses"] += 1
            continue
        elif name := line["freed"]:
            live.pop(name, None)
            continue
        elif call := line["blocks"]:
            plan.add(blocks, live.values())
            of_blocks = set(re.findall(r"&(buf\d+)_handle", call))
            continue
        elif (name := line["given"]) in live:
            continue  # its memory was counted when it was made
        elif name not in of_blocks:
            plan.counts["results"] += 1
        formula = sympy.sympify(wrapper.buffers.get(name, 0))
        live[name] = _Size((formula,), int(formula.subs(example)))
        if name not in of_blocks:
            plan.allocated = _total((plan.allocated, live[name]))
        plan.at_once(_total(live.values()))
    plan.left = _total(live.values())
    return plan


_KINDS = ("allocations", "results", "reuses")


class _Size(NamedTuple):
    """Bytes as a sum of formulas, which is slow to simplify, and in the example."""

    formulas: tuple[Any, ...] = ()
    in_example: int = 0

    @property
    def formula(self) -> Any:
        return sum(count * formula for formula, count in Counter(self.formulas).items())


@dataclass
class _Plan:
    """counts: of `_KINDS`. left: what lives at the end."""

    counts: dict[str, int]
    allocated: _Size = _Size()
    peak: _Size = _Size()
    left: _Size = _Size()

    def at_once(self, live: _Size) -> None:
        self.peak = max(self.peak, live, key=lambda size: size.in_example)

    def add(self, blocks: Sequence[_Plan], live: Iterable[_Size]) -> None:
        """Blocks that run while `live` does; each reads what the one before left."""
        outside, before = list(live), _Size()
        for block in blocks:
            self.counts = {name: n + block.counts[name] for name, n in self.counts.items()}
            self.allocated = _total((self.allocated, block.allocated))
            self.at_once(_total((*outside, before, block.peak)))
            before = block.left


def _total(sizes: Iterable[_Size]) -> _Size:
    parts = list(sizes)
    formulas = tuple(formula for part in parts for formula in part.formulas)
    return _Size(formulas, sum(part.in_example for part in parts))

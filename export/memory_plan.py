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
    r"|(?P<freed>\w+)\.reset\(\)"
    r"|auto (?P<input>\w+) = std::move\(inputs\[(?P<place>\d+)\]\)"
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
    found = _plan(wrapper, blocks, example)
    return {
        **found.counts,
        "bytes": str(found.allocated.formula),
        "peak_bytes": str(found.peak.formula),
        "example": example,
    }


def _plan(
    wrapper: Wrapper,
    blocks: Sequence[Wrapper],
    example: Mapping[str, int],
    given: Mapping[int, _Size] | None = None,
) -> _Plan:
    """given: inputs that are the graph's own, by place."""
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
        elif name := line["input"]:
            if size := (given or {}).get(int(line["place"])):
                live[name] = size
            continue
        elif name := line["freed"]:
            live.pop(name, None)
            continue
        elif call := line["blocks"]:
            results = re.findall(r"&(buf\d+)_handle", call)
            made = [_size(wrapper, name, example) for name in results]
            _add_blocks(plan, call, live, blocks, example, made)
            of_blocks = set(results)
            continue
        elif (name := line["given"]) in live:
            continue  # its memory was counted when it was made
        elif name not in of_blocks:
            plan.counts["results"] += 1
        live[name] = _size(wrapper, name, example)
        if name not in of_blocks:
            plan.allocated = _total((plan.allocated, live[name]))
        plan.at_once(live.values())
    return plan


def _add_blocks(
    plan: _Plan,
    call: str,
    live: dict[str, _Size],
    blocks: Sequence[Wrapper],
    example: Mapping[str, int],
    made: Sequence[_Size],
) -> None:
    """Blocks that run while `live` does. Each owns what the one before it made, the first what the
    call gives away."""
    x = re.findall(r"(\w+)(?:\.release\(\))?, ", call)[: len(made)]
    given = {i: live.pop(name) for i, name in enumerate(x) if f"{name}.release()" in call}
    later = dict(enumerate(made))
    plans: dict[tuple[str, bool], _Plan] = {}
    for number, block in enumerate(blocks):
        key = block.text, number == 0
        if key not in plans:
            plans[key] = _plan(block, [], example, later if number else given)
        plan.add(plans[key], live.values())


def _size(wrapper: Wrapper, name: str, example: Mapping[str, int]) -> _Size:
    formula = sympy.sympify(wrapper.buffers.get(name, 0))
    return _Size((formula,), int(formula.subs(example)))


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
    """counts: of `_KINDS`."""

    counts: dict[str, int]
    allocated: _Size = _Size()
    peak: _Size = _Size()

    def at_once(self, live: Iterable[_Size]) -> None:
        self.peak = max(self.peak, _total(live), key=lambda size: size.in_example)

    def add(self, other: _Plan, live: Iterable[_Size]) -> None:
        """What runs while `live` does."""
        self.counts = {name: n + other.counts[name] for name, n in self.counts.items()}
        self.allocated = _total((self.allocated, other.allocated))
        self.at_once((*live, other.peak))


def _total(sizes: Iterable[_Size]) -> _Size:
    parts = list(sizes)
    formulas = tuple(formula for part in parts for formula in part.formulas)
    return _Size(formulas, sum(part.in_example for part in parts))

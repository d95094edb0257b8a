"""Time of several engines side by side: flat, by layer, and as a tree of modules.

Every form holds all of the time, what is unmatched too, so each adds up to the engines' totals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..attribution import UNMATCHED, Path, Slice, kind, layer

Times = list[int]  # nanoseconds, of each engine
Key = TypeVar("Key")


@dataclass
class Node:
    """A module: its own time and that of what is inside it."""

    path: Path
    own: Times
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def total(self) -> Times:
        columns = zip(self.own, *(child.total for child in self.children.values()), strict=True)
        return [sum(column) for column in columns]

    def walk(self) -> Iterator[Node]:
        """Itself and all inside, a parent before its children."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def tree(engines: Sequence[Iterable[Slice]]) -> Node:
    """The root, whose path is (). Modules come as the engines run them, numbers in order."""
    root = Node((), [0] * len(engines))
    for engine, pieces in enumerate(engines):
        for piece in pieces:
            node = root
            for depth, name in enumerate(piece.path, 1):
                if name not in node.children:
                    node.children[name] = Node(piece.path[:depth], [0] * len(engines))
                node = node.children[name]
            node.own[engine] += piece.ns
    for node in root.walk():
        ordered = sorted(node.children.items(), key=lambda item: _order(item[0]))
        node.children = dict(ordered)
    return root


def _order(name: str) -> tuple[bool, int]:
    """Numbers by value, all else as found, what is unmatched last."""
    return name == UNMATCHED, int(name) if name.isdecimal() else 0


def flat(root: Node) -> list[tuple[Path, Times]]:
    """Each module's own time."""
    return [(node.path, node.own) for node in root.walk() if any(node.own)]


def layers(root: Node) -> list[tuple[Path, Times]]:
    """The time of each layer, and of each module that is in none."""
    return list(grouped(root, layer).items())


def kinds(root: Node) -> list[tuple[str, Times]]:
    """Each module's own time, summed over the layers."""
    return list(grouped(root, kind).items())


def grouped(root: Node, key: Callable[[Path], Key]) -> dict[Key, Times]:
    """Own times, summed over the modules that have the same key."""
    sums: dict[Key, Times] = {}
    for path, own in flat(root):
        before = sums.setdefault(key(path), [0] * len(own))
        sums[key(path)] = [a + b for a, b in zip(before, own, strict=True)]
    return sums


def matched(root: Node) -> Times:
    """The time that counts to a module."""
    found = root.total
    if UNMATCHED in root.children:
        rest = root.children[UNMATCHED].total
        found = [a - b for a, b in zip(found, rest, strict=True)]
    return found


def aligned(root: Node) -> Times:
    """The time at modules where every engine spends some, at itself or inside."""
    found = [0] * len(root.own)
    for node in root.walk():
        if node.path and node.path[0] != UNMATCHED and all(node.total):
            found = [a + b for a, b in zip(found, node.own, strict=True)]
    return found

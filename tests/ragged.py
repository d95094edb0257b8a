"""Ragged schedules: how a batch of sequences may be cut into steps, ordered, and put into pages."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st

BLOCK = 16
MOST_STEPS = 5  # the last takes all that is left


@dataclass(frozen=True)
class Part:
    """One sequence's share of a step: its tokens from `start` to `end`."""

    sequence: int
    start: int
    end: int


@dataclass(frozen=True)
class Schedule:
    """lengths: tokens of each sequence. pages: blocks, in the order in which they are given out.

    ghosts: for each step, sequences that own nothing (seq_lens 0), as (place in the batch, tokens).
    padding: tokens after the last sequence of each step. infinite: of what the poison is.
    """

    lengths: list[int]
    steps: list[list[Part]]
    pages: list[int]
    ghosts: list[list[tuple[int, int]]]
    padding: int
    infinite: bool
    tables: dict[int, list[int]] = field(default_factory=dict)

    @property
    def num_blocks(self) -> int:
        return len(self.pages)

    def give_pages(self) -> None:
        """Each sequence's block table, blocks given out as the steps need them."""
        free = iter(self.pages)
        self.tables.update({b: [] for b in range(len(self.lengths))})
        for part in (part for step in self.steps for part in step):
            table = self.tables[part.sequence]
            while len(table) * BLOCK < part.end:
                table.append(next(free))

    def slot(self, sequence: int, position: int) -> int:
        return self.tables[sequence][position // BLOCK] * BLOCK + position % BLOCK

    def inputs(self, step: int) -> Inputs:
        """The step as the graph contract has it; block tables are filled up with a block that
        nobody owns."""
        rows: list[tuple[Part | None, int]] = [(p, p.end - p.start) for p in self.steps[step]]
        for place, tokens in self.ghosts[step]:
            rows.insert(place % (len(rows) + 1), (None, tokens))
        width = max(-(-part.end // BLOCK) for part in self.steps[step]) + 1
        slots, positions, starts, lens, tables = [], [], [0], [], []
        for part, tokens in rows:
            where = range(part.start, part.end) if part else range(tokens)
            positions += where
            slots += [self.slot(part.sequence, p) if part else -1 for p in where]
            starts.append(starts[-1] + tokens)
            lens.append(part.end if part else 0)
            owned = self.tables[part.sequence][: -(-part.end // BLOCK)] if part else []
            tables.append(owned + [self.pages[-1]] * (width - len(owned)))
        slots += [-1] * self.padding
        positions += [0] * self.padding
        return Inputs(
            [part for part, _ in rows],
            *(torch.tensor(x, dtype=torch.int64) for x in (positions, slots, starts, lens, tables)),
        )


@dataclass(frozen=True)
class Inputs:
    """int64; parts: the sequences of query_start and seq_lens, None where nothing is owned."""

    parts: list[Part | None]
    positions: torch.Tensor
    slots: torch.Tensor
    query_start: torch.Tensor
    seq_lens: torch.Tensor
    block_table: torch.Tensor

    def gather(self, of_sequences: list[torch.Tensor]) -> torch.Tensor:
        """What each token of the step has in [tokens of the sequence, ...]; ghosts' and padding's
        are as a first token's."""
        rows = []
        for part, begin, end in zip(
            self.parts, self.query_start[:-1], self.query_start[1:], strict=True
        ):
            if part:
                rows.append(of_sequences[part.sequence][part.start : part.end])
            else:
                rows.append(
                    of_sequences[0][:1].expand(int(end - begin), *of_sequences[0].shape[1:])
                )
        left = len(self.slots) - int(self.query_start[-1])
        rows.append(of_sequences[0][:1].expand(left, *of_sequences[0].shape[1:]))
        return torch.cat(rows)

    def scatter(self, out: torch.Tensor, of_sequences: list[torch.Tensor]) -> torch.Tensor:
        """Puts the rows of a step's output where `gather` takes them from; returns the others."""
        others = [out[int(self.query_start[-1]) :]]
        for part, begin, end in zip(
            self.parts, self.query_start[:-1], self.query_start[1:], strict=True
        ):
            if part:
                of_sequences[part.sequence][part.start : part.end] = out[begin:end]
            else:
                others.append(out[begin:end])
        return torch.cat(others)


def alone(sequence: int, length: int) -> Inputs:
    """The whole sequence in one step, in the blocks from 0 on."""
    where = torch.arange(length)
    starts, pages = torch.tensor([0, length]), torch.arange(-(-length // BLOCK))[None]
    return Inputs([Part(sequence, 0, length)], where, where, starts, starts[1:], pages)


@st.composite
def schedules(draw: st.DrawFn, longest: int = 70, most: int = 4, ghosts: bool = True) -> Schedule:
    """1 to `most` sequences of 1 to `longest` tokens. ghosts: with those, and padding."""
    lengths = draw(st.lists(st.integers(1, longest), min_size=1, max_size=most))
    fed, steps = [0] * len(lengths), []
    while live := [b for b, length in enumerate(lengths) if fed[b] < length]:
        step = []
        for b in draw(st.permutations(live)):
            left, last = lengths[b] - fed[b], len(steps) == MOST_STEPS - 1
            count = left if last else draw(st.integers(0, left))
            if count:
                step.append(Part(b, fed[b], fed[b] + count))
                fed[b] += count
        if step:
            steps.append(step)
        elif len(steps) < MOST_STEPS - 1:  # all wait: let one go on, so that the steps end
            steps.append([Part(live[0], fed[live[0]], fed[live[0]] + 1)])
            fed[live[0]] += 1
    blocks = sum(-(-length // BLOCK) for length in lengths) + 2
    places = st.tuples(st.integers(0, most), st.integers(0, 3))
    some = st.lists(places, max_size=2) if ghosts else st.just([])
    schedule = Schedule(
        lengths,
        steps,
        draw(st.permutations(range(blocks))),
        [draw(some) for _ in steps],
        draw(st.integers(0, 3)) if ghosts else 0,
        draw(st.booleans()),
    )
    schedule.give_pages()
    return schedule

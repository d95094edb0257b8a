"""Many sessions of one package: each gives what it gives alone, whatever becomes of the others."""

from __future__ import annotations

import contextlib
import gc
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

import ingot
from ingot.runtime import BadInput, NoSpace, Piece, Session

BLOCK = 16


@dataclass(frozen=True)
class Turn:
    """One call of a session, and what its reader does: stop after `taken` tokens."""

    prompt: list[int]
    options: dict[str, Any]
    taken: int
    ending: str  # "end", "close" the iterator, or "raise" in the loop over it


def conversation(seed: int) -> list[Turn]:
    draw, turns = random.Random(seed), []
    for _ in range(4):
        new = draw.randint(1, 16)
        greedy = draw.random() < 0.5
        sampled = {"temperature": 1.0, "top_k": 20, "top_p": 0.9, "seed": draw.randrange(2**32)}
        ending = draw.choice(["end", "end", "close", "raise"])
        turns.append(
            Turn(
                [draw.randrange(2, 4096) for _ in range(draw.choice([1, 5, 40, 300]))],
                {"max_new_tokens": new, "ignore_eos": True, **({} if greedy else sampled)},
                new if ending == "end" else draw.randint(1, new),
                ending,
            )
        )
    return turns


def hold(session: Session, turns: list[Turn]) -> list[list[int]]:
    """The tokens of each turn; the session remembers the turns before."""
    answers = []
    for turn in turns:
        pieces, taken = session.generate(turn.prompt, **turn.options), []
        with contextlib.suppress(ZeroDivisionError):
            for piece in pieces:
                taken.append(piece.token)
                if turn.ending != "end" and len(taken) == turn.taken:
                    if turn.ending == "close":
                        break
                    raise ZeroDivisionError  # as a reader's own code might
        del piece, pieces
        with pytest.raises(BadInput, match="out of range"):  # and fails between the turns
            list(session.generate([4096]))
        answers.append(taken)
    return answers


def test_eight_conversations_at_once(demo_package: Path) -> None:
    """Greedy and sampled, long prompts and short ones, stopped, failing and going on."""
    package = ingot.load(demo_package)
    talks = [conversation(seed) for seed in range(8)]
    alone = []
    for turns in talks:
        with package.session() as session:
            alone.append(hold(session, turns))
    together: dict[int, list[list[int]]] = {}

    def talk(who: int) -> None:
        with package.session() as session:
            together[who] = hold(session, talks[who])

    threads = [threading.Thread(target=talk, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[who] for who in range(8)] == alone
    for turns, answers in zip(talks, alone, strict=True):
        assert [len(answer) for answer in answers] == [turn.taken for turn in turns]


def test_a_stopped_session_holds_what_its_reader_saw(demo_package: Path) -> None:
    package = ingot.load(demo_package)
    with package.session() as session:
        pieces = session.generate([5, 6, 7], max_new_tokens=200, ignore_eos=True)
        seen = [next(pieces).token for _ in range(3)]
        pieces.close()
        assert session.length == 6
        more = [p.token for p in session.generate([9], max_new_tokens=8, ignore_eos=True)]
    again = package.generate([5, 6, 7, *seen, 9], max_new_tokens=8, ignore_eos=True)
    assert [piece.token for piece in again] == more


def test_resetting_a_session_ends_its_generation(demo_package: Path) -> None:
    package = ingot.load(demo_package)
    with package.session() as session:
        pieces = session.generate([1], max_new_tokens=900, ignore_eos=True)
        next(pieces)
        session.reset()
        assert len(list(pieces)) < 899
        assert session.length == 0


def test_sessions_may_be_closed_while_others_call_them(demo_package: Path) -> None:
    """Every call ends: with its result, or with a sentence."""
    package = ingot.load(demo_package)
    for _ in range(10):
        session, endings = package.session(), []

        def call(work: Callable[[], Any], into: list[Any] = endings) -> None:
            try:
                work()
            except ingot.runtime.IngotError as error:
                into.append(str(error))
            else:
                into.append("")

        works: list[Callable[[], Any]] = [
            lambda s=session: list(s.generate([1], max_new_tokens=50, ignore_eos=True)),
            lambda s=session: s.logits([1] * 100),
            lambda s=session: s.length,
            lambda s=session: s.score([1, 2], [3]),
            session.close,
        ]
        threads = [threading.Thread(target=call, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(endings) == len(works)
        told = ("", "the session is closed", "the session is busy", "stopped by")
        assert all(ending.startswith(told) for ending in endings), endings


def test_a_refused_call_keeps_nothing_alive(demo_package: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        package = ingot.load(demo_package)
        with package.session() as session, pytest.raises(BadInput):
            list(session.generate([4096]))
        alive = weakref.ref(package)
        del session, package
        assert alive() is None
    finally:
        gc.enable()


def test_in_a_forked_child_all_is_refused_and_may_be_dropped(demo_package: Path) -> None:
    program = f"""
import os, ingot
package = ingot.load({str(demo_package)!r})
session = package.session()
pieces = session.generate([1], max_new_tokens=900, ignore_eos=True)
next(pieces)
if os.fork() == 0:
    refused = 0
    for call in (
        lambda: next(pieces),
        lambda: session.logits([1]),
        lambda: session.score([1], [2]),
        lambda: session.length,
        lambda: session.reset(),
        lambda: list(session.generate([1])),
        lambda: list(package.generate([1])),
    ):
        try:
            call()
        except ingot.runtime.BadInput as error:
            refused += "before fork()" in str(error)
    session.close()
    del pieces, session, package
    os._exit(refused)
ended = os.waitstatus_to_exitcode(os.wait()[1])
assert ended == 7, ended
rest = list(pieces)
assert len(rest) == 899, len(rest)
"""
    found = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True)
    assert (found.returncode, found.stderr) == (0, b"")


@dataclass
class Talk:
    """A session and what it must hold."""

    session: Session
    held: list[int] = field(default_factory=list)
    pieces: Any = None  # the iterator in progress
    expected: list[int] = field(default_factory=list)  # of what it has left to give


class Talks(RuleBasedStateMachine):
    """A package's sessions in any order of calls, against each conversation alone.

    The model of a conversation is a fresh session of another opening of the package, which is given
    all of its tokens at once. Of the cache, a session takes the blocks of what it holds, no more,
    and a call that finds no block left leaves the others alone.
    """

    path: Path
    blocks = 14
    talks = Bundle("talks")

    def __init__(self) -> None:
        super().__init__()
        self.package = ingot.load(self.path, kv_tokens=self.blocks * BLOCK, threads=1)
        self.model = ingot.load(self.path, threads=1)
        self.open: list[Talk] = []

    def answer(self, tokens: list[int], count: int) -> list[int]:
        pieces = self.model.generate(tokens, max_new_tokens=count, ignore_eos=True)
        return [piece.token for piece in pieces]

    def tight(self) -> bool:
        """Whether what runs may use up all blocks: it works ahead of its reader."""
        tokens = ((talk.held, talk.expected) for talk in self.open)
        return sum(-(-len(h + e) // BLOCK) for h, e in tokens) > self.blocks

    @rule(target=talks)
    def start(self) -> Talk:
        talk = Talk(self.package.session())
        self.open.append(talk)
        return talk

    @rule(talk=talks, seed=st.integers(0, 99), length=st.integers(1, 40), new=st.integers(1, 12))
    def generate(self, talk: Talk, seed: int, length: int, new: int) -> None:
        prompt = [2 + (seed * 37 + i * i * 11) % 4000 for i in range(length)]
        if talk.pieces:
            with pytest.raises(BadInput, match="busy"):
                next(talk.session.generate(prompt))
            return
        talk.expected = self.answer(talk.held + prompt, new)
        before, talk.held = talk.held, talk.held + prompt
        talk.pieces = talk.session.generate(prompt, max_new_tokens=new, ignore_eos=True)
        if self.take(talk, 1) == 0:
            talk.held = before

    def take(self, talk: Talk, count: int) -> int:
        """Up to `count` tokens of the iterator; how many there were."""
        for taken in range(count):
            try:
                piece: Piece | None = next(talk.pieces, None)
            except NoSpace:
                assert self.tight()
                talk.pieces, talk.expected = None, []
                return taken
            if piece is None:
                assert not talk.expected
                talk.pieces = None
                return taken
            assert piece.token == talk.expected.pop(0)
            talk.held = [*talk.held, piece.token]
        return count

    @rule(talk=talks, count=st.integers(1, 13))
    def go_on(self, talk: Talk, count: int) -> None:
        if talk.pieces:
            self.take(talk, count)

    @rule(talk=talks)
    def stop(self, talk: Talk) -> None:
        if talk.pieces:
            talk.pieces.close()
            talk.pieces, talk.expected = None, []

    @rule(talk=talks)
    def reset(self, talk: Talk) -> None:
        talk.session.reset()
        self.stop(talk)
        talk.held = []

    @rule(talk=consumes(talks))
    def close(self, talk: Talk) -> None:
        talk.session.close()
        self.stop(talk)
        self.open.remove(talk)

    @rule()
    def the_rest_of_the_cache_is_free(self) -> None:
        if any(talk.pieces for talk in self.open):
            return
        free = self.blocks - sum(-(-(len(talk.held) - 1) // BLOCK) for talk in self.open)
        self.fits_exactly(free)

    def fits_exactly(self, blocks: int) -> None:
        with self.package.session() as session:
            with pytest.raises(NoSpace):
                session.score([3] * (blocks * BLOCK + 1), [4])
            if blocks:
                session.score([3] * (blocks * BLOCK), [4])

    @invariant()
    def sessions_hold_what_was_said(self) -> None:
        for talk in self.open:
            if not talk.pieces:
                assert talk.session.length == len(talk.held)

    def teardown(self) -> None:
        for talk in list(self.open):
            self.close(talk)
        self.fits_exactly(self.blocks)


def test_any_order_of_calls(demo_package: Path) -> None:
    class OfTheDemo(Talks):
        path = demo_package

    run_state_machine_as_test(
        OfTheDemo,
        settings=settings(max_examples=10, stateful_step_count=20, deadline=None, derandomize=True),
    )

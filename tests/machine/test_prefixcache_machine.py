"""The prefix cache against a model of the KV cache: no cell is shared wrongly, none is lost."""

from __future__ import annotations

import dataclasses
import random
from typing import Final

import pytest

from ollamad.runners.protocol import MemoryKind
from ollamad.runners.worker.prefixcache import OpenSequence, PrefixCache
from ollamad.runners.worker.prefixtree import SequenceId
from ollamad.runners.worker.tokens import Tokens, tokens_of

WINDOW: Final = 4
N_CELLS: Final = 48
N_SEQUENCES: Final = 7
N_OPEN_MAX: Final = 3
WALKS: Final = 20
STEPS: Final = 300


@dataclasses.dataclass(eq=False)
class Cell:
    """A cell: the tokens up to it, as the one that computed it had them."""

    text: tuple[int, ...]

    @property
    def position(self) -> int:
        return len(self.text) - 1


class FakeMemory:
    """A KV cache that knows what each cell was computed from, and forgets as llama.cpp may."""

    n_cells = N_CELLS
    n_sequences = N_SEQUENCES
    window = WINDOW

    def __init__(self, kind: MemoryKind, *, is_roomy: bool) -> None:
        self.kind = kind
        self.is_roomy = is_roomy
        self.cells: dict[int, list[Cell]] = {n: [] for n in range(self.n_sequences)}
        self.forgotten: set[Cell] = set()
        """Cells that window layers gave away."""

    def share(self, source: SequenceId, target: SequenceId, begin: int, end: int) -> None:
        own = [c for c in self.cells[target] if not begin <= c.position < end]
        taken = [c for c in self.cells[source] if begin <= c.position < end]
        if self.kind is MemoryKind.RECURRENT:
            assert not own, "a state cannot be put together from parts"
            assert taken == self.cells[source], "a state cannot be cut"
        self.cells[target] = sorted(own + taken, key=lambda c: c.position)

    def cut(self, sequence: SequenceId, n_tokens: int) -> bool:
        has = self.cells[sequence]
        if self.kind is MemoryKind.RECURRENT and 0 < n_tokens < len(has):
            return False
        self.cells[sequence] = has[:n_tokens]
        return True

    def first_kept(self, sequence: SequenceId) -> int:
        lost = [c.position for c in self.cells[sequence] if c in self.forgotten]
        return max(lost) + 1 if lost else 0

    def compute(self, sequence: SequenceId, tokens: tuple[int, ...]) -> None:
        """Compute the tokens after what *sequence* has."""
        has = self.cells[sequence]
        assert [c.position for c in has] == list(range(len(has))), "a hole"
        needed = has[-self.window + 1 :] if self.kind is MemoryKind.WINDOW else ()
        assert not self.forgotten.intersection(needed), "computed from what was given away"
        for n in range(len(has), len(tokens)):
            has.append(Cell(tokens[: n + 1]))

    def give_away(self, sequence: SequenceId) -> None:
        """Overwrite what fell out of the window and only *sequence* has."""
        has = self.cells[sequence]
        others = {c for n, cells in self.cells.items() if n != sequence for c in cells}
        for cell in has[: max(len(has) - self.window, 0)]:
            if cell in others:
                break
            self.forgotten.add(cell)

    @property
    def n_used(self) -> int:
        return len({cell for cells in self.cells.values() for cell in cells})


@dataclasses.dataclass(eq=False)
class Running:
    sequence: OpenSequence
    tokens: Tokens

    @property
    def computed(self) -> tuple[int, ...]:
        return tuple(int(t) for t in self.tokens[: self.sequence.n_tokens])


BASES: Final = ([0] * 12, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 1] * 6)
"""Texts begin like these, so that they often begin alike."""


class Walk:
    """Requests open, compute, publish and close in any order."""

    def __init__(self, kind: MemoryKind, *, is_roomy: bool, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - no secret
        self.memory = FakeMemory(kind, is_roomy=is_roomy)
        self.cache = PrefixCache(self.memory)
        self.open: list[Running] = []

    def step(self) -> None:
        rules = [self.lets_go] if self.chance.random() < 0.1 else []
        if len(self.open) < N_OPEN_MAX:
            rules += [self.opens] * 2
        if self.open:
            rules += [self.computes] * 3
            rules += [self.answers, self.publishes, self.closes, self.window_moves_on]
            rules += [self.restarts] if self.chance.random() < 0.1 else []
        if rules:
            self.chance.choice(rules)()

    def opens(self) -> None:
        tail = self.chance.choices((0, 1), k=self.chance.randrange(5))
        base = self.chance.choice(BASES)[: self.chance.randrange(2, 13)]
        text, partition = tokens_of([*base, *tail]), self.chance.choice(("", "", "", "other"))
        promised = self.cache.reusable(partition, text)
        sequence = self.cache.open(partition, text)
        assert sequence is not None, "idle texts must give way to requests"
        assert sequence.n_tokens == promised < len(text)
        self.open.append(Running(sequence, text))

    def computes(self) -> None:
        one = self.chance.choice(self.open)
        n = min(self.chance.randrange(1, 14), len(one.tokens) - one.sequence.n_tokens)
        if not self.cache.make_room(n):
            return
        upto = tuple(int(t) for t in one.tokens[: one.sequence.n_tokens + n])
        self.memory.compute(one.sequence.id, upto)
        one.sequence.n_tokens += n

    def answers(self) -> None:
        one = self.chance.choice(self.open)
        one.tokens = tokens_of([*map(int, one.tokens), self.chance.randrange(2)])

    def publishes(self) -> None:
        one = self.chance.choice(self.open)
        back = self.chance.choice((0, 0, self.chance.randrange(8)))
        if one.sequence.n_tokens > back:
            self.cache.publish(one.sequence, one.tokens, one.sequence.n_tokens - back)

    def restarts(self) -> None:
        self.cache.restart(self.chance.choice(self.open).sequence)

    def window_moves_on(self) -> None:
        if self.memory.kind is MemoryKind.WINDOW:
            self.memory.give_away(SequenceId(self.chance.randrange(N_SEQUENCES)))

    def closes(self) -> None:
        one = self.open.pop(self.chance.randrange(len(self.open)))
        self.cache.close(one.sequence, one.tokens, keep=self.chance.random() < 0.9)

    def lets_go(self) -> None:
        self.cache.let_go_of_one()

    # What must hold after each step

    def check(self) -> None:
        for one in self.open:
            cells = self.memory.cells[one.sequence.id]
            assert [c.text for c in cells] == [
                one.computed[: n + 1] for n in range(len(one.computed))
            ], "it has cells of another text"
        assert self.cache.n_used >= self.memory.n_used, "cells were lost"
        if self.memory.kind is MemoryKind.WHOLE:
            assert self.cache.n_used == self.memory.n_used, "cells were counted twice"
        assert 0 <= self.cache.count_shared() <= self.cache.n_used
        held = sum(bool(cells) for cells in self.memory.cells.values())
        running = sum(one.sequence.n_tokens > 0 for one in self.open)
        assert held == running + self.cache.n_idle, "a sequence was forgotten"

    def end(self) -> None:
        while self.open:
            self.closes()
        while self.cache.let_go_of_one():
            pass
        assert self.cache.n_used == 0
        assert self.memory.n_used == 0


@pytest.mark.parametrize(
    ("kind", "is_roomy"),
    [
        (MemoryKind.WHOLE, True),
        (MemoryKind.WINDOW, True),
        (MemoryKind.WINDOW, False),
        (MemoryKind.RECURRENT, True),
    ],
)
def test_no_cell_is_shared_wrongly_and_none_is_lost(kind: MemoryKind, is_roomy: bool) -> None:
    for seed in range(WALKS):
        walk = Walk(kind, is_roomy=is_roomy, seed=seed)
        for _ in range(STEPS):
            walk.step()
            walk.check()
        walk.end()

"""Who waits for whom, on a KV cache that only counts."""

from __future__ import annotations

import dataclasses

from ollamad.runners.protocol import Generate, MemoryKind
from ollamad.runners.worker.generation import Generation
from ollamad.runners.worker.prefixcache import PrefixCache
from ollamad.runners.worker.prefixtree import SequenceId
from ollamad.runners.worker.scheduler import WORTH_WAITING_TOKENS, seat

LONG = tuple(range(1000, 1040))


@dataclasses.dataclass
class CountingMemory:
    kind: MemoryKind = MemoryKind.WHOLE
    n_cells: int = 1000
    n_sequences: int = 8
    window: int = 8
    is_roomy: bool = True

    def share(self, source: SequenceId, target: SequenceId, begin: int, end: int) -> None:
        pass

    def cut(self, sequence: SequenceId, n_tokens: int) -> bool:
        return self.kind is not MemoryKind.RECURRENT or n_tokens == 0

    def first_kept(self, sequence: SequenceId) -> int:
        return 0


class Engine:
    """Seats requests and computes as it is told."""

    def __init__(self, kind: MemoryKind = MemoryKind.WHOLE, **memory: bool) -> None:
        self.cache = PrefixCache(CountingMemory(kind, **memory))
        self.running: list[Generation] = []

    def ask(self, *prompt: int, partition: str = "") -> Generation:
        return Generation(
            Generate(id=1, prompt="", partition=partition),
            prompt,
            n_ctx=256,
            n_generated_max=10,
            sampler=None,
            constraint=None,
            arrival=1,
            now=0.0,
        )

    def seats(self, generation: Generation) -> bool:
        sequence = seat(generation, self.running, self.cache)
        if sequence is None:
            return False
        generation.seat(sequence, now=0.0)
        self.running.append(generation)
        return True

    def end(self, generation: Generation) -> None:
        tokens, sequence = generation.tokens, generation.leave()
        assert sequence is not None
        self.running.remove(generation)
        self.cache.close(sequence, tokens, keep=True)


def compute(generation: Generation, n_tokens: int) -> None:
    generation.sequence.n_tokens += n_tokens


def test_a_request_waits_for_what_another_is_computing() -> None:
    engine = Engine()
    first, second = engine.ask(*LONG, 1), engine.ask(*LONG, 2)
    assert engine.seats(first)

    assert not engine.seats(second)
    compute(first, 40)
    assert engine.seats(second)

    assert second.n_computed == 40


def test_a_request_does_not_wait_for_a_few_tokens() -> None:
    engine = Engine()
    few = LONG[: WORTH_WAITING_TOKENS - 1]
    assert engine.seats(engine.ask(*few, 1))

    assert engine.seats(engine.ask(*few, 2))


def test_nobody_waits_for_a_request_of_another_partition() -> None:
    engine = Engine()
    first = engine.ask(*LONG, 1, partition="a")
    assert engine.seats(first)
    compute(first, 41)

    other = engine.ask(*LONG, 2, partition="b")
    assert engine.seats(other)
    assert other.n_computed == 0


def test_when_the_first_leaves_the_second_computes_by_itself() -> None:
    engine = Engine()
    first, second = engine.ask(*LONG, 1), engine.ask(*LONG, 2)
    engine.seats(first)
    compute(first, 10)
    engine.end(first)

    assert engine.seats(second)
    assert second.n_computed == 10


def test_a_running_answer_can_be_gone_on_from() -> None:
    engine = Engine()
    first = engine.ask(*LONG)
    engine.seats(first)
    compute(first, 40)
    first.extend((7, 8))
    compute(first, 2)

    second = engine.ask(*LONG, 7, 8, 9)
    assert engine.seats(second)
    assert second.n_computed == 42


def test_a_prompt_s_last_token_is_always_computed() -> None:
    engine = Engine()
    first = engine.ask(*LONG)
    engine.seats(first)
    compute(first, 40)
    engine.end(first)

    again = engine.ask(*LONG)
    assert engine.seats(again)
    assert again.n_computed == 39


def test_a_state_is_kept_just_where_texts_part() -> None:
    engine = Engine(MemoryKind.RECURRENT)
    first, second = engine.ask(*LONG, 1, 2), engine.ask(*LONG, 3, 4)
    engine.seats(first)

    assert not engine.seats(second)
    assert 40 in first.stops
    compute(first, 40)
    engine.cache.publish(first.sequence, first.tokens, 40)
    compute(first, 2)
    assert engine.seats(second)
    assert second.n_computed == 40


def test_a_state_that_was_not_kept_is_kept_the_next_time() -> None:
    engine = Engine(MemoryKind.RECURRENT)
    first = engine.ask(*LONG, 1, 2)
    engine.seats(first)
    compute(first, 42)
    engine.end(first)

    second = engine.ask(*LONG, 3, 4)
    engine.seats(second)

    assert second.n_computed == 0
    assert {40, 42} <= second.stops


def test_nobody_waits_for_a_window_that_cannot_be_copied() -> None:
    engine = Engine(MemoryKind.WINDOW, is_roomy=False)
    first, second = engine.ask(*LONG, 1), engine.ask(*LONG, 2)
    engine.seats(first)

    assert engine.seats(second)
    assert second.n_computed == 0

from __future__ import annotations

import pytest

from ollamad.errors import ProtocolBroken
from ollamad.runners.protocol import FinishReason, Generate
from ollamad.runners.worker.generation import (
    TRANSITIONS,
    Generation,
    GenerationEvent,
    GenerationState,
    advance,
    shift_range,
)
from ollamad.runners.worker.prefixcache import OpenSequence
from ollamad.runners.worker.prefixtree import Node, SequenceId
from ollamad.runners.worker.tokens import tokens_of


def a_generation(
    prompt: tuple[int, ...] = (1, 2, 3), answered: tuple[int, ...] = (), limit: int = 10
) -> Generation:
    return Generation(
        Generate(id=1, prompt="", answered=answered),
        prompt,
        n_ctx=32,
        n_generated_max=limit,
        sampler=None,
        constraint=None,
        arrival=1,
        now=100.0,
    )


def a_sequence(n_tokens: int = 0) -> OpenSequence:
    return OpenSequence(SequenceId(0), "", Node(tokens_of(()), None, 0), n_tokens)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(GenerationState)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (GenerationState.WAITING, GenerationEvent.PROMPT_DONE),
        (GenerationState.WAITING, GenerationEvent.RESTARTED),
        (GenerationState.DECODE, GenerationEvent.PROMPT_DONE),
        (GenerationState.DECODE, GenerationEvent.SEATED),
        (GenerationState.ENDED, GenerationEvent.LEFT),
    ],
)
def test_what_cannot_happen_is_said(state: GenerationState, event: GenerationEvent) -> None:
    with pytest.raises(ProtocolBroken, match=state.name):
        advance(state, event)


def test_what_the_cache_had_is_not_pending() -> None:
    generation = a_generation((1, 2, 3, 4, 5))
    generation.seat(a_sequence(n_tokens=2), now=101.0)

    assert generation.n_pending == 3
    assert generation.next_tokens(2).tolist() == [3, 4]


def test_the_last_token_chosen_is_what_is_pending() -> None:
    generation = a_generation((1, 2, 3))
    generation.seat(a_sequence(), now=101.0)
    generation.sequence.n_tokens = 3
    generation.prompt_done(now=102.0)

    generation.extend(generation.answer(7, ()))

    assert generation.next_tokens(generation.n_pending).tolist() == [7]
    assert generation.tokens.tolist() == [1, 2, 3, 7]


def test_forced_tokens_end_at_the_limit() -> None:
    generation = a_generation(limit=3)

    assert generation.answer(7, [8, 9, 10, 11]) == (7, 8, 9)
    assert generation.is_full


def test_a_continued_answer_is_computed_with_its_prompt_and_counted_once() -> None:
    generation = a_generation((1, 2), answered=(5, 6), limit=3)
    generation.seat(a_sequence(), now=100.0)

    assert generation.next_tokens(9).tolist() == [1, 2, 5, 6]
    generation.answer(7, ())
    assert generation.is_full
    assert generation.timings(now=101.0).generated_tokens == 1
    assert generation.timings(now=101.0).prompt_tokens == 2


def test_dropping_the_middle_keeps_both_ends() -> None:
    generation = a_generation((0, 1, 2, 3, 4, 5, 6, 7))

    generation.drop_middle(2, 5)

    assert generation.tokens.tolist() == [0, 1, 5, 6, 7]


def test_time_is_told_apart() -> None:
    generation = a_generation()
    generation.seat(a_sequence(n_tokens=1), now=101.0)
    generation.prompt_done(now=103.0)

    timings = generation.timings(now=107.0)

    assert (timings.queue_s, timings.prefill_s, timings.decode_s) == (1.0, 2.0, 4.0)
    assert timings.cached_tokens == 1


def test_a_request_that_never_had_a_slot_only_waited() -> None:
    timings = a_generation().timings(now=104.0)

    assert (timings.queue_s, timings.prefill_s, timings.decode_s) == (4.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("n_held", "n_keep", "dropped"),
    [(100, 4, (4, 52)), (100, 0, (0, 50)), (100, -1, (0, 50)), (100, 99, (98, 99)), (5, 4, (3, 4))],
)
def test_a_shift_drops_half_of_what_need_not_be_kept(
    n_held: int, n_keep: int, dropped: tuple[int, int]
) -> None:
    assert shift_range(n_held, n_keep) == dropped


def test_an_answer_longer_than_the_context_is_replayed_into_what_was_left_of_it() -> None:
    request = Generate(id=1, prompt="", answered=tuple(range(100, 150)), shift=True)
    generation = Generation(
        request,
        (1, 2, 3),
        n_ctx=32,
        n_generated_max=99,
        sampler=None,
        constraint=None,
        arrival=1,
        now=0.0,
    )

    assert generation.tokens.tolist()[:3] == [1, 2, 3]
    assert generation.tokens.tolist()[-1] == 149
    assert len(generation.tokens) < 32
    assert generation.ending is None


def test_an_answer_that_had_ended_is_known_by_its_tokens() -> None:
    assert a_generation(answered=(5, 6), limit=2).ending is FinishReason.LENGTH
    assert a_generation(answered=(5, 6), limit=3).ending is None
    assert a_generation(answered=tuple(range(28)), limit=99).ending is None
    assert a_generation(answered=tuple(range(29)), limit=99).ending is FinishReason.LENGTH

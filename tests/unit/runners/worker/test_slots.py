from __future__ import annotations

import itertools

import pytest

from ollamad.errors import ProtocolBroken
from ollamad.runners.protocol import FinishReason, Timings
from ollamad.runners.worker.slots import (
    TRANSITIONS,
    Sequence,
    Slot,
    SlotEvent,
    SlotState,
    advance,
    limit_reached,
)
from ollamad.runners.worker.text import TextAssembler
from tests.unit.runners.messages import a_request

S, E = SlotState, SlotEvent
LEGAL = {
    (S.IDLE, E.SEATED): S.PREFILL,
    (S.PREFILL, E.PROMPT_DONE): S.DECODE,
    (S.PREFILL, E.LEFT): S.IDLE,
    (S.DECODE, E.LEFT): S.IDLE,
}


def a_sequence(*, prompt: list[int] | None = None, n_generated_max: int = 100) -> Sequence:
    return Sequence(
        request=a_request(),
        prompt=prompt or [1, 2, 3],
        text=TextAssembler(),
        sampler=None,
        n_generated_max=n_generated_max,
        arrived_at=10.0,
        seated_at=12.0,
        arrival=1,
    )


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_each_event_in_each_state_does_what_the_design_says_or_is_refused(
    state: SlotState, event: SlotEvent
) -> None:
    if (state, event) in LEGAL:
        assert advance(state, event) is LEGAL[state, event]
    else:
        with pytest.raises(ProtocolBroken, match=f"{state.name} cannot take {event.name}"):
            advance(state, event)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(S)


def test_a_newcomer_finds_the_first_tokens_computed_and_the_others_forgotten() -> None:
    slot = Slot(0, cached=[1, 2, 8, 9])
    slot.seat(a_sequence(prompt=[1, 2, 3, 4]), n_cached=2)

    assert slot.cached == [1, 2]
    assert slot.pending == [3, 4]


def test_a_prompt_is_pending_until_all_of_it_is_computed_then_the_last_token_is() -> None:
    slot, sequence = Slot(0), a_sequence(prompt=[1, 2, 3])
    slot.seat(sequence, n_cached=0)
    slot.cached += [1, 2]
    assert slot.pending == [3]

    slot.cached.append(3)
    slot.state = advance(slot.state, E.PROMPT_DONE)
    sequence.generated += [7, 8]

    assert slot.pending == [8]


def test_whoever_leaves_leaves_the_cache_behind() -> None:
    slot, sequence = Slot(0), a_sequence()
    slot.seat(sequence, n_cached=0)
    slot.cached += [1, 2, 3]

    assert slot.leave(tick=42) is sequence
    assert (slot.state, slot.sequence, slot.last_used) == (S.IDLE, None, 42)
    assert slot.cached == [1, 2, 3]


def test_a_seat_is_for_one() -> None:
    slot = Slot(0)
    slot.seat(a_sequence(), n_cached=0)

    with pytest.raises(ProtocolBroken):
        slot.seat(a_sequence(), n_cached=0)


@pytest.mark.parametrize(
    ("n_generated", "n_held", "reason"),
    [
        (99, 10, None),
        (100, 10, FinishReason.LENGTH),
        (1, 62, None),
        (1, 63, FinishReason.LENGTH),
        (1, 64, FinishReason.LENGTH),
    ],
    ids=["below", "own-limit", "one-place-left", "context-full", "beyond"],
)
def test_an_answer_ends_at_its_limit_or_when_the_context_is_full(
    n_generated: int, n_held: int, reason: FinishReason | None
) -> None:
    sequence = a_sequence(n_generated_max=100)
    sequence.generated += [5] * n_generated

    assert limit_reached(sequence, n_held, n_ctx=64) is reason


@pytest.mark.parametrize(
    ("prefilled_at", "prefill_s", "decode_s"),
    [(15.0, 3.0, 5.0), (0.0, 8.0, 0.0)],
    ids=["decoding", "still-prefilling"],
)
def test_timings_cover_the_whole_stay(
    prefilled_at: float, prefill_s: float, decode_s: float
) -> None:
    sequence = a_sequence(prompt=[1, 2, 3])
    sequence.n_cached, sequence.prefilled_at = 2, prefilled_at
    sequence.generated += [7]

    assert sequence.timings(now=20.0) == Timings(
        queue_s=2.0,
        prefill_s=prefill_s,
        decode_s=decode_s,
        prompt_tokens=3,
        cached_tokens=2,
        generated_tokens=1,
    )

from __future__ import annotations

import pytest

from ollamad.runners.protocol import Delta, Failed, FailureCode
from ollamad.runners.worker.engine import StepResult
from ollamad.runners.worker.pacing import PERIOD_MAX_S, PERIOD_MIN_S, Pacer, period_s

SOON = PERIOD_MIN_S / 4


def said(offset: int, request_id: int = 1) -> StepResult:
    return StepResult(deltas=[Delta(request_id, offset, f"{offset} ", (offset,))])


def test_the_first_token_of_an_answer_is_sent_at_once() -> None:
    pacer = Pacer()
    pacer.take(said(0), 10.0, is_steady=True)

    assert pacer.take(said(0, request_id=2), 10.0 + SOON, is_steady=True)


def test_tokens_that_come_fast_travel_together() -> None:
    pacer = Pacer()
    pacer.take(said(0), 10.0, is_steady=True)

    assert not pacer.take(said(1), 10.0 + SOON, is_steady=True)
    assert not pacer.take(said(2), 10.0 + 2 * SOON, is_steady=True)
    sent = pacer.take(said(3), 10.0 + PERIOD_MIN_S, is_steady=True)

    assert sent.deltas == [Delta(1, 1, "1 2 3 ", (1, 2, 3))]


def test_tokens_that_come_slowly_are_sent_one_by_one() -> None:
    pacer = Pacer()
    for n in range(5):
        assert pacer.take(said(n), n * 2 * PERIOD_MIN_S, is_steady=True).deltas == said(n).deltas


def test_nothing_is_held_back_when_the_next_step_may_be_long() -> None:
    pacer = Pacer()
    pacer.take(said(0), 10.0, is_steady=True)

    assert pacer.take(said(1), 10.0 + SOON, is_steady=False)


def test_an_end_brings_all_that_was_held_back_of_everybody() -> None:
    pacer = Pacer()
    pacer.take(said(0), 10.0, is_steady=True)
    pacer.take(said(1), 10.0 + SOON, is_steady=True)
    pacer.take(said(7, request_id=2), 10.0 + SOON, is_steady=True)
    ending = StepResult(failed=[Failed(1, FailureCode.ENGINE, "why")])

    sent = pacer.take(ending, 10.0 + 2 * SOON, is_steady=True)

    assert sent.deltas == [*said(1).deltas, *said(7, request_id=2).deltas]
    assert sent.failed


def test_what_is_held_back_can_be_had_when_something_else_is_to_be_done() -> None:
    pacer = Pacer()
    pacer.take(said(0), 10.0, is_steady=True)
    pacer.take(said(1), 10.0 + SOON, is_steady=True)

    assert pacer.rest() == said(1).deltas
    assert pacer.rest() == []


@pytest.mark.parametrize(
    ("n_streams", "seconds"),
    [(1, PERIOD_MIN_S), (5, PERIOD_MIN_S), (6, 1 / 30), (8, PERIOD_MAX_S), (64, PERIOD_MAX_S)],
)
def test_each_of_many_streams_is_written_more_rarely(n_streams: int, seconds: float) -> None:
    assert period_s(n_streams) == pytest.approx(seconds)


def test_tokens_of_many_streams_wait_for_each_other_longer() -> None:
    pacer = Pacer()

    def step(offset: int) -> StepResult:
        return StepResult(deltas=[said(offset, n).deltas[0] for n in range(8)])

    pacer.take(step(1), 10.0, is_steady=True)

    assert not pacer.take(step(2), 10.0 + 0.04, is_steady=True)
    assert [delta.tokens for delta in pacer.take(step(3), 10.0 + 0.08, is_steady=True).deltas] == [
        (2, 3)
    ] * 8

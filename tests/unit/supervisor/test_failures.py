from __future__ import annotations

import math

import pytest

from ollamad.config import SchedulingConfig
from ollamad.modelinfo import WeightsId
from ollamad.supervisor.failures import (
    MARGIN_LASTS_S,
    MARGIN_MAX,
    MARGIN_STEP,
    MARGINS_MAX,
    FailureBook,
)
from tests.values import a_subject

LLAMA = a_subject()
W = LLAMA.weights_id


def a_book(*failed_at: float) -> FailureBook:
    book = FailureBook(SchedulingConfig(restart_delay_s=2))
    for at in failed_at:
        book.record(LLAMA, "it broke", at)
    return book


def test_a_model_that_never_failed_is_neither_cooling_nor_put_off() -> None:
    book = a_book()

    assert book.cooling(LLAMA, 0) is None
    assert book.put_off_until(W) == -math.inf
    assert book.n_failures(W) == 0
    assert book.margin(W) == 1


def test_the_next_deadline_is_when_a_start_that_was_put_off_may_happen() -> None:
    book = a_book(0, 10)

    assert book.put_off_until(W) == 12
    assert book.next_deadline(11) == 12
    assert book.next_deadline(12) == math.inf


def test_a_cooling_says_how_often_it_failed_why_and_how_long_it_lasts() -> None:
    error = a_book(0, 1, 2).cooling(LLAMA, 3)

    assert error is not None
    assert "llama:8b failed 3 times, last: it broke" in error.message
    assert error.retry_after_s == 29


def test_what_is_old_is_forgotten() -> None:
    book = a_book(0)
    book.forget_old(119)
    assert book.n_failures(W) == 1

    book.forget_old(120)

    assert book.n_failures(W) == 0
    assert not book.reset(W)


def test_a_reset_forgets_failures_and_margins() -> None:
    book = a_book(0, 1, 2)
    book.ran_out_of_memory(W, 3)

    assert book.reset(W)

    assert book.cooling(LLAMA, 3) is None
    assert book.margin(W) == 1
    assert not book.reset(W)


def test_a_load_that_runs_out_of_memory_is_tried_again_once() -> None:
    book = a_book()

    assert book.ran_out_of_memory(W, 0)
    assert book.is_retrying(W)
    assert not book.ran_out_of_memory(W, 1)
    assert not book.is_retrying(W)
    assert book.ran_out_of_memory(W, 2)


def test_after_a_success_the_next_one_is_tried_again_too() -> None:
    book = a_book()
    book.ran_out_of_memory(W, 0)

    book.loaded(W)

    assert not book.is_retrying(W)
    assert book.ran_out_of_memory(W, 1)


def test_the_margin_grows_to_a_limit_and_does_not_last() -> None:
    book = a_book()
    factors = []
    for now in range(5):
        book.ran_out_of_memory(W, now)
        factors.append(book.margin(W))

    assert factors[:2] == [MARGIN_STEP, pytest.approx(MARGIN_STEP**2)]
    assert factors[-1] == MARGIN_MAX
    book.forget_old(4 + MARGIN_LASTS_S)
    assert book.margin(W) == 1


def test_margins_are_bounded_and_the_oldest_goes_first() -> None:
    book = a_book()
    for number in range(MARGINS_MAX + 1):
        book.ran_out_of_memory(WeightsId(str(number)), number)

    assert book.margin(WeightsId("0")) == 1
    assert book.margin(WeightsId("1")) == MARGIN_STEP

from __future__ import annotations

import dataclasses

import pytest

from ollamad.buffersizes import BufferSizes
from ollamad.gpu.estimate import MemoryDemand
from ollamad.gpu.learned import FACTOR_MAX, FACTOR_MIN, LearnedDemand, MarginBook

DEMAND = MemoryDemand(
    weights_bytes=1000, kv_cache_bytes=200, compute_bytes=100, process_bytes=100, output_bytes=20
)
SIZES = BufferSizes(context_bytes=240, compute_bytes=80, output_bytes=20)


def test_a_margin_is_what_was_measured_by_what_was_predicted() -> None:
    book = MarginBook()
    book.record("w", "w|a", predicted=100, measured=110)

    assert book.factor("w", "w|a") == pytest.approx(1.1)


def test_other_options_of_the_same_weights_take_the_last_margin_and_other_weights_none() -> None:
    book = MarginBook()
    book.record("w", "w|a", predicted=100, measured=110)
    book.record("w", "w|b", predicted=100, measured=130)

    assert book.factor("w", "w|a") == pytest.approx(1.1)
    assert book.factor("w", "w|new") == pytest.approx(1.3)
    assert book.factor("v", "v|a") == 1.0


@pytest.mark.parametrize(
    ("predicted", "measured", "factor"),
    [(100, 1000, FACTOR_MAX), (100, 1, FACTOR_MIN), (0, 100, 1.0), (-5, 100, 1.0)],
)
def test_a_margin_is_bounded(predicted: int, measured: int, factor: float) -> None:
    book = MarginBook()
    book.record("w", "w|a", predicted=predicted, measured=measured)

    assert book.factor("w", "w|a") == factor


def test_a_full_book_forgets_what_was_not_used_for_longest() -> None:
    book = LearnedDemand(entries_max=2)
    book.note_buffers("a", SIZES)
    book.note_buffers("b", SIZES)
    assert book.buffers("a") is not None

    book.note_buffers("c", SIZES)

    assert len(book) == 2
    assert book.buffers("b") is None
    assert book.buffers("a") is not None
    margins = MarginBook(entries_max=4)
    for number in range(100):
        margins.record(f"w{number}", f"w{number}|a", predicted=1, measured=1)
    assert len(margins) == 4


def test_what_nothing_is_known_of_is_left_as_it_is() -> None:
    assert LearnedDemand().applied("w", "w|a", DEMAND) == DEMAND


def test_after_a_load_the_same_plan_needs_what_was_measured() -> None:
    book = LearnedDemand()
    book.learn("w", "w|a", DEMAND, held_bytes=1500, sizes=SIZES)

    needed = book.applied("w", "w|a", DEMAND)

    assert needed.weights_bytes == 1000
    assert abs(needed.total_bytes - 1500) <= 4


def test_learning_twice_does_not_add_up() -> None:
    """A margin on a demand that has one already is another number, not their product."""
    book = LearnedDemand()
    for _ in range(5):
        needed = book.applied("w", "w|a", DEMAND)
        book.learn("w", "w|a", needed, held_bytes=1500, sizes=SIZES)

    assert abs(book.applied("w", "w|a", DEMAND).total_bytes - 1500) <= 8


def test_other_options_profit_from_a_load_of_the_same_weights() -> None:
    book = LearnedDemand()
    book.learn("w", "w|a", DEMAND, held_bytes=1420 + 42, sizes=None)

    wider = dataclasses.replace(DEMAND, kv_cache_bytes=1200)

    assert book.applied("w", "w|b", wider).kv_cache_bytes == pytest.approx(1200 * 1.1, abs=2)

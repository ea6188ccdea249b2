from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ollamad.runners.worker.packing import share_step


def share(*pending: list[int], n_tokens: int = 100, n_texts: int = 8) -> list[int]:
    return share_step(pending, n_tokens_max=n_tokens, n_texts_max=n_texts)


def test_a_request_with_many_texts_leaves_room_for_a_small_one() -> None:
    assert share([30] * 50, [30]) == [2, 1]


def test_the_oldest_requests_text_is_in_however_long_it_is() -> None:
    assert share([500, 1], [1]) == [1, 0]


def test_what_does_not_fit_is_not_overtaken_by_its_own_later_texts() -> None:
    assert share([60], [50, 1], [30]) == [1, 0, 1]


def test_there_are_only_so_many_sequences() -> None:
    assert share([1, 1, 1], [1, 1, 1], n_texts=3) == [2, 1]
    assert share([1], [1], [1], n_texts=2) == [1, 1, 0]


def test_requests_without_texts_get_nothing() -> None:
    assert share([], [5]) == [0, 1]


@given(
    pending=st.lists(st.lists(st.integers(1, 40), max_size=6), max_size=6),
    n_tokens=st.integers(1, 80),
    n_texts=st.integers(1, 8),
)
def test_a_step_computes_something_and_keeps_its_limits(
    pending: list[list[int]], n_tokens: int, n_texts: int
) -> None:
    counts = share(*pending, n_tokens=n_tokens, n_texts=n_texts)

    taken = [length for lengths, n in zip(pending, counts, strict=True) for length in lengths[:n]]
    assert len(taken) <= n_texts
    assert sum(taken) <= n_tokens or len(taken) == 1
    assert bool(taken) is any(pending)
    oldest = next((index for index, lengths in enumerate(pending) if lengths), None)
    assert oldest is None or counts[oldest] >= 1

from __future__ import annotations

import pytest

from ollamad.runners.sequences import SEQUENCES_MAX, n_sequences


@pytest.mark.parametrize(
    ("n_slots", "n_batch", "has_states", "has_small_windows", "expected"),
    [
        (4, 512, False, False, 28),
        (4, 512, True, False, 8),
        (4, 512, False, True, 8),
        (4, 512, True, True, 8),
        (250, 512, False, False, SEQUENCES_MAX),
        (1, 8, False, False, 8),
    ],
    ids=["whole", "states", "windows", "hybrid", "the-engine-s-limit", "a-small-batch"],
)
def test_a_context_has_sequences_beyond_its_slots_within_its_limits(
    n_slots: int, n_batch: int, has_states: bool, has_small_windows: bool, expected: int
) -> None:
    counted = n_sequences(
        n_slots, n_batch, has_states=has_states, has_small_windows=has_small_windows
    )

    assert counted == expected

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ollamad.runners.worker.prefixcache import IdleSlot, choose_slot, common_prefix

PROMPT = [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("left", "right", "common"),
    [
        ([], [], 0),
        ([1], [], 0),
        ([1, 2], [1, 2], 2),
        ([1, 2, 3], [1, 2], 2),
        ([1, 9, 3], [1, 2, 3], 1),
        ([9], [1], 0),
        ([1, 2], (1, 2), 2),
        ((1, 2, 3), [1, 2, 4], 2),
    ],
)
def test_a_common_prefix_is_counted(left: Sequence[int], right: Sequence[int], common: int) -> None:
    assert common_prefix(left, right) == common
    assert common_prefix(right, left) == common


@pytest.mark.parametrize(
    ("idle", "chosen"),
    [
        ([IdleSlot(0, [], 0), IdleSlot(1, [1, 2], 0)], (1, 2)),
        ([IdleSlot(0, [1, 2, 9, 9], 0), IdleSlot(1, [1, 9], 0)], (0, 2)),
        ([IdleSlot(0, PROMPT, 0)], (0, 3)),
        ([IdleSlot(0, [1, 2, 3, 4, 5], 0)], (0, 3)),
        ([IdleSlot(0, [9] * 8, 0), IdleSlot(1, [9] * 2, 5)], (1, 0)),
        ([IdleSlot(0, [1, 2, 9, 9], 0), IdleSlot(1, [1, 2, 9], 5)], (1, 2)),
        ([IdleSlot(0, [9], 7), IdleSlot(1, [9], 3)], (1, 0)),
        ([IdleSlot(0, [1, *[9] * 99], 0), IdleSlot(1, [], 9)], (1, 0)),
    ],
    ids=[
        "some-beats-none", "longest-prefix", "the-last-token-is-computed", "a-longer-cache",
        "shortest-cache-is-lost", "shortest-cache-among-equal-prefixes", "least-recently-used",
        "an-empty-slot-before-another-conversation",
    ],
)  # fmt: skip
def test_the_slot_that_saves_most_is_taken(idle: list[IdleSlot], chosen: tuple[int, int]) -> None:
    assert choose_slot(idle, PROMPT) == chosen


def test_a_prompt_of_one_token_saves_nothing() -> None:
    assert choose_slot([IdleSlot(0, [1], 0)], [1]) == (0, 0)

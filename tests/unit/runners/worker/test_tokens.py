from __future__ import annotations

import pytest

from ollamad.runners.worker.tokens import common_prefix, tokens_of


@pytest.mark.parametrize(
    ("left", "right", "common"),
    [
        ((), (), 0),
        ((), (1,), 0),
        ((1, 2, 3), (1, 2, 3), 3),
        ((1, 2), (1, 2, 3), 2),
        ((1, 2, 3), (1, 9, 3), 1),
        ((9,), (1,), 0),
    ],
)
def test_the_common_beginning_is_counted(
    left: tuple[int, ...], right: tuple[int, ...], common: int
) -> None:
    assert common_prefix(tokens_of(left), tokens_of(right)) == common
    assert common_prefix(tokens_of(right), tokens_of(left)) == common

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ollamactl.render import columns, printable, processor_share, relative_time, table
from ollamactl.wire import ZERO_TIME

NOW = datetime(2026, 8, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60 + 59, "59 minutes"),
        (3600, "About an hour"),
        (89 * 60, "About an hour"),
        (90 * 60, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_times_are_told_in_ollamas_words(seconds: float, words: str) -> None:
    span = timedelta(seconds=seconds)

    assert relative_time(NOW - span, NOW) == f"{words} ago"
    assert relative_time(NOW + span, NOW) == f"{words} from now"


def test_a_zero_time_is_never_and_a_far_one_forever() -> None:
    assert relative_time(ZERO_TIME, NOW) == "Never"
    assert relative_time(NOW.replace(year=2318), NOW) == "Forever"


@pytest.mark.parametrize(
    ("size", "vram", "share"),
    [
        (100, 0, "100% CPU"),
        (100, 100, "100% GPU"),
        (100, 75, "25%/75% CPU/GPU"),
        (1000, 995, "1%/99% CPU/GPU"),
        (100, 101, "Unknown"),
        (0, 5, "Unknown"),
    ],
)
def test_the_processor_column_tells_the_shares(size: int, vram: int, share: str) -> None:
    assert processor_share(size, vram) == share


def test_every_cell_of_a_table_is_padded_also_the_last() -> None:
    assert table(("NAME", "ID"), [("llama3.2:latest", "a80c")]) == (
        "NAME               ID      \nllama3.2:latest    a80c    \n"
    )


def test_wide_characters_keep_the_columns_aligned() -> None:
    assert table(("A", "B"), [("模型", "x")]) == "A       B    \n模型    x    \n"


def test_long_cells_wrap_at_spaces_and_long_words_do_not() -> None:
    word = "w" * 40
    assert columns([["one two three four five six seven eight", word]]) == (
        f"one two three four five six    {word}    \n"
        f"seven eight                    {' ' * 40}    \n"
    )


def test_rows_of_different_lengths_are_filled_up() -> None:
    assert columns([["a"], ["b", "c"]], indent="  ") == "  a         \n  b    c    \n"


def test_escape_sequences_never_reach_a_cell() -> None:
    assert table(("NAME",), [("\x1b]0;evil\x07x\x9b31m",)]).splitlines()[1].strip() == (
        "]0;evilx31m"
    )
    assert printable("a\r\nb\tc\x00") == "a\nb\tc"

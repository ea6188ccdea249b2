from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ollamactl.wordwrap import COLUMNS_MIN, MARGIN_COLUMNS, WordWrap


def wrapped(*pieces: str, columns: int = 25) -> str:
    wrap = WordWrap(columns)
    return "".join(wrap.feed(piece) for piece in pieces) + wrap.finish()


def test_a_word_that_does_not_fit_begins_the_next_line() -> None:
    assert wrapped("the quick brown fox jumps over") == "the quick brown fox\njumps over"


def test_a_word_in_pieces_is_wrapped_as_one() -> None:
    assert wrapped("the quick brown", " fox ju", "mps") == "the quick brown fox\njumps"


def test_newlines_and_indents_stay() -> None:
    assert wrapped("a\n\n    b  c\n") == "a\n\n    b  c\n"


def test_a_word_longer_than_a_line_is_written_before_it_ends() -> None:
    wrap = WordWrap(25)

    assert len(wrap.feed("x" * 30)) >= 20


def test_text_without_spaces_is_not_held_back() -> None:
    wrap = WordWrap(25)

    assert wrap.feed("你好") == "你好"


@given(st.lists(st.text(alphabet="ab 你\n", max_size=30), max_size=20))
def test_no_line_is_too_wide_and_no_character_is_lost(pieces: list[str]) -> None:
    out = wrapped(*pieces)

    squeezed = "".join(pieces).replace(" ", "").replace("\n", "")
    assert out.replace(" ", "").replace("\n", "") == squeezed
    assert all(cell_len(line.rstrip()) <= COLUMNS_MIN for line in out.splitlines())
    assert MARGIN_COLUMNS == 25 - COLUMNS_MIN

"""Wants take what is theirs, and give the rest back, however a text is cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ollamad.http.answer.wants import Blank, Follow, Marks, Until, Value, Want


def given(want: Want, text: str, size: int) -> str:
    """Return what *want* leaves of *text*."""
    for begin in range(0, len(text), size):
        after = want.take(text[begin : begin + size], is_last=False)
        if after is not None:
            return after + text[begin + size :]
    after = want.take("", is_last=True)
    assert after is not None
    return after


@pytest.fixture(params=[1, 2, 3, 100])
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_until_takes_all_up_to_the_first_mark(size: int) -> None:
    until = Until("<b>", "<bb>")

    assert given(until, "a <b <bb> c<b>", size) == " c<b>"
    assert (until.before, until.mark) == ("a <b ", "<bb>")


def test_until_prefers_the_longer_of_two_marks(size: int) -> None:
    until = Until("</", "</call>")

    assert given(until, "a</call>b", size) == "b"
    assert until.mark == "</call>"


def test_until_ends_with_the_text(size: int) -> None:
    until = Until("<b>")

    assert given(until, "all <b", size) == ""
    assert (until.before, until.mark) == ("all <b", "")


def test_until_goes_no_further_than_its_limit(size: int) -> None:
    until = Until(">", chars_max=10)

    given(until, "x" * 1000 + ">", size)

    assert until.mark == ""
    assert len(until.before) <= 10 + size


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ('{"a": "}\\"", "b": [1]} x', '{"a": "}\\"", "b": [1]}', " x"),
        ("[[], {}]]", "[[], {}]", "]"),
        ('"{"', '"{"', None),
    ],
)
def test_a_value_ends_with_its_bracket(text: str, value: str, rest: str | None, size: int) -> None:
    want = Value()

    assert given(want, text, size) == (rest or "")
    assert (want.text, want.is_whole) == (value, rest is not None)


@pytest.mark.parametrize("text", ["{]", "[1}", '{"a": [}'])
def test_brackets_that_do_not_match_end_a_value_that_is_not_whole(text: str, size: int) -> None:
    want = Value()

    assert given(want, text + " x", size) == " x"
    assert not want.is_whole


def test_pythons_quotes_hide_brackets(size: int) -> None:
    want = Value(is_python=True)

    assert given(want, "[f(a=')\\'', b=\"]\")] x", size) == " x"
    assert want.is_whole


def test_blanks_are_skipped(size: int) -> None:
    blank = Blank(",")

    assert given(blank, " \n, x ", size) == "x "
    assert blank.next == "x"


@pytest.mark.parametrize(
    ("text", "found", "rest"),
    [
        ("</a>\n</b>x", 1, "x"),
        (" </a> x", 0, " x"),
        ("</a></c>", 0, "</c>"),
        ("</c>", None, "</c>"),
        ("\n</ax", None, "\n</ax"),
        ("</a", 0, ""),
        ("", None, ""),
    ],
)
def test_the_longest_text_that_follows_is_taken(
    text: str, found: int | None, rest: str, size: int
) -> None:
    follow = Follow("</a>", "</a></b>")

    assert given(follow, text, size) == rest
    assert follow.found == found


@pytest.mark.parametrize("make", [lambda: Until("x"), Blank, Value, lambda: Follow("x")])
def test_at_the_end_there_is_an_answer(make: Callable[[], Want]) -> None:
    assert make().take("", is_last=True) == ""


def test_without_marks_nothing_is_found() -> None:
    assert Marks("", "").find("text") == (4, "")

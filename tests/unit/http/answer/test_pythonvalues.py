"""Python's calls and values, within bounds."""

from __future__ import annotations

import pytest

from ollamad.http.answer.pythonvalues import DEPTH_MAX, NotPython, calls_of, value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-4", -4),
        ("4.5e1", 45.0),
        ("None", None),
        ("true", True),
        (r"'it\'s \x41\u00e9\n\d'", "it's A\u00e9\n\\d"),
        ('"a, (b"', "a, (b"),
        ("{'a': [1, (2, 3),], \"b\": {}}", {"a": [1, [2, 3]], "b": {}}),
    ],
)
def test_values_are_read(text: str, value: object) -> None:
    assert value_of(text) == value


def test_calls_are_read_one_or_several() -> None:
    assert calls_of("f()") == [("f", {})]
    assert calls_of("f()\ng(x=1)") == [("f", {}), ("g", {"x": 1})]
    assert calls_of("[ a.b(x=1), c(y='z',), ]") == [("a.b", {"x": 1}), ("c", {"y": "z"})]


@pytest.mark.parametrize(
    "text",
    [
        "", "f", "f(1)", "f(x=)", "f(x=1", "[f(x=1)", "f(x=y)", "f(x=1) 2", "[f(), 1]",
        "__import__", "f(x={1: 2})",
        "f(x=" + "[" * 1000, "f(x=" + "9" * 1000 + ")", "f(x='a)", "f(x=1;)",
    ],
)  # fmt: skip
def test_all_else_is_refused(text: str) -> None:
    with pytest.raises(NotPython):
        calls_of(text)


def test_brackets_go_to_a_limit() -> None:
    def nested(depth: int) -> str:
        return f"f(x={'[' * depth}{']' * depth})"

    assert calls_of(nested(DEPTH_MAX))
    with pytest.raises(NotPython):
        calls_of(nested(DEPTH_MAX + 1))

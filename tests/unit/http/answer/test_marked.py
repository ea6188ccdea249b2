"""An answer is taken apart at its marks, however it was cut."""

from __future__ import annotations

import pytest

from ollamad.http.answer.marked import MarkedParser
from ollamad.http.answer.parts import Parts

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


def parsed(text: str, *, size: int = 1, is_thinking: bool = False) -> Parts:
    parser = MarkedParser(
        thinking=("<think>", "</think>"),
        calls=("<tool_call>", "</tool_call>"),
        is_thinking=is_thinking,
    )
    parts = Parts()
    for begin in range(0, len(text), size):
        parts.add(parser.feed(text[begin : begin + size]))
    parts.add(parser.finish())
    return parts


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_thinking_text_and_calls_come_apart(size: int) -> None:
    parts = parsed(f"<think>so</think>I add {CALL}.", size=size)

    assert (parts.thinking, parts.text) == ("so", "I add .")
    (call,) = parts.calls
    assert (call.name, call.arguments) == ("add", {"a": 1})


def test_thinking_may_have_begun_in_the_prompt() -> None:
    parts = parsed("so</think>yes", is_thinking=True)

    assert (parts.thinking, parts.text) == ("so", "yes")


@pytest.mark.parametrize(
    "text",
    [
        "a < b, <thin> and <tool",
        "<tool_call>not a call</tool_call> after",
        '<tool_call>{"name": "add", "argu',
    ],
)
def test_what_is_no_call_is_text(text: str) -> None:
    assert parsed(text) == Parts(text=text)

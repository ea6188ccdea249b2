"""An answer is taken apart at its marks, however it was cut, and nothing of it is lost."""

from __future__ import annotations

import logging
import time

import pytest

from ollamad.http.answer.answerparser import BLANKS_HELD_MAX, TRANSITIONS, Inside
from ollamad.http.answer.format import AnswerFormat
from ollamad.http.answer.namedformats import HERMES
from ollamad.http.answer.parts import Marks, Parts
from tests.unit.http.answer.reading import read, spelled

FORM = AnswerFormat(thinking=Marks("<think>", "</think>"), calls=HERMES)
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
ADDED = ("add", {"a": 1})


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(Inside)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_thinking_text_and_calls_come_apart(size: int) -> None:
    parts = read(FORM, f"<think>\nso\n</think>\n\nI add\n{CALL}\n{CALL}", size=size)

    assert (parts.thinking, parts.text) == ("so", "I add")
    assert spelled(parts.calls) == [ADDED, ADDED]
    assert len({call.id for call in parts.calls}) == 2


def test_a_call_is_told_when_it_is_whole_and_not_when_the_answer_ends() -> None:
    parser = FORM.parser("")
    assert parser is not None

    parts = parser.feed(CALL.removesuffix("\n</tool_call>"))

    assert spelled(parts.calls) == [ADDED]


def test_thinking_may_have_begun_in_the_prompt() -> None:
    parts = read(FORM, "so</think>yes", prompt="<|assistant|>\n<think>\n")

    assert (parts.thinking, parts.text) == ("so", "yes")


def test_an_opening_that_the_prompt_has_said_already_is_not_thought() -> None:
    parts = read(FORM, "<think>so <think></think>yes", prompt="<think>")

    assert (parts.thinking, parts.text) == ("so <think>", "yes")


def test_a_close_without_an_opening_is_no_text() -> None:
    assert read(FORM, "</think>\nyes") == Parts(text="yes")


def test_what_is_never_closed_stays_thought() -> None:
    parts = read(FORM, f"<think>I could {CALL} ")

    assert (parts.thinking, parts.calls) == (f"I could {CALL} ", ())


@pytest.mark.parametrize(
    "text",
    [
        "a < b, <thin> and <tool",
        "the tag <think> opens, and </think> closes",
        "<tool_call>not a call</tool_call> after",
        '<tool_call>{"name": "add", "argu',
        '<tool_call>\n{"name": "add", "arguments": "none"}\n</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": 1}]</tool_call>',
        "<tool_call>" + '{"a":' * 100_000,
        "<tool_call>[]</tool_call>",
        "  \n\n",
        "x \n",
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_what_is_no_call_is_text(text: str, size: int) -> None:
    assert read(FORM, text, size=size) == Parts(text=text)


def test_a_good_call_after_a_broken_one_is_read() -> None:
    parts = read(FORM, f"<tool_call>oh</tool_call>{CALL}")

    assert parts.text == "<tool_call>oh</tool_call>"
    assert spelled(parts.calls) == [ADDED]


def test_a_broken_call_is_noted_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    read(FORM, "<tool_call>secret</tool_call>")

    assert "cannot be read" in caplog.text
    assert "secret" not in caplog.text


def test_without_tools_a_call_is_text() -> None:
    assert read(FORM, CALL, tools=[]).text == CALL


def test_a_call_of_an_unknown_tool_is_a_call() -> None:
    """Whoever asked can tell the model so; marks in a text are no use to anybody."""
    parts = read(FORM, CALL.replace("add", "subtract"))

    assert spelled(parts.calls) == [("subtract", {"a": 1})]


def test_a_call_that_the_answer_ends_in_is_read() -> None:
    assert spelled(read(FORM, CALL.removesuffix("_call>")).calls) == [ADDED]


def test_long_blanks_are_not_held_until_something_comes() -> None:
    parser = FORM.parser("")
    assert parser is not None

    n_told = sum(len(parser.feed("\n").text) for _ in range(BLANKS_HELD_MAX + 36))

    assert n_told == 36


@pytest.mark.parametrize(
    "answer",
    [
        "word " * 40_000,
        "<think>" + "<thin " * 30_000,
        "x" + "<tool_call" * 20_000,
        '<tool_call>{"name": "say", "arguments": {"what": "' + "a\\n" * 350_000 + '"}}',
        "<tool_call>" + " " * 200_000,
    ],
    ids=["text", "thinking", "openings", "a megabyte of call", "blanks"],
)
def test_an_answer_costs_no_more_than_its_length(answer: str) -> None:
    """One character at a time: four times as much takes four times as long, not sixteen."""

    def seconds(text: str) -> float:
        parser = FORM.parser("")
        assert parser is not None
        began = time.thread_time()
        for character in text:
            parser.feed(character)
        parser.finish()
        return time.thread_time() - began

    seconds(answer[:1000])
    quarter, whole = seconds(answer[: len(answer) // 4]), seconds(answer)

    assert whole < 2 * 4 * quarter + 0.1

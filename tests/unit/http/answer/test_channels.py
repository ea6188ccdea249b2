"""Answers whose messages have headers."""

from __future__ import annotations

import pytest

from ollamad.http.answer.channels import HEADER_CHARS_MAX, TRANSITIONS, In
from ollamad.http.answer.format import AnswerFormat
from ollamad.http.answer.namedformats import BEFORE_PROBES
from ollamad.http.answer.parts import Parts
from tests.unit.http.answer.reading import read, spelled

HARMONY, ATEM, FUNCTIONARY = (
    AnswerFormat(thinking=named.thinking, calls=named.calls, channels=named.channels)
    for named in BEFORE_PROBES
)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(In)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_gpt_oss_thinks_calls_and_answers(size: int) -> None:
    parts = read(
        HARMONY,
        "<|channel|>analysis<|message|>Adding.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>I add.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>"
        '{"a": 1}<|call|>',
        size=size,
    )

    assert (parts.thinking, parts.text) == ("Adding.", "I add.")
    assert spelled(parts.calls) == [("add", {"a": 1})]


def test_a_recipient_may_come_before_the_channel() -> None:
    answer = ' to=functions.add<|channel|>commentary json<|message|>{"a": 1}'

    assert spelled(read(HARMONY, answer).calls) == [("add", {"a": 1})]


def test_a_final_message_is_text() -> None:
    parts = read(HARMONY, "<|channel|>final<|message|>Three.<|return|>")

    assert parts == Parts(text="Three.")


def test_arguments_that_are_no_json_are_text() -> None:
    answer = "<|channel|>commentary to=functions.add<|message|>a is 1<|call|>"

    assert read(HARMONY, answer) == Parts(text="a is 1")


def test_without_tools_a_call_is_text() -> None:
    answer = "<|channel|>commentary to=functions.add<|message|>{}<|call|>"

    assert read(HARMONY, answer, tools=[]) == Parts(text="{}")


@pytest.mark.parametrize("answer", ["just text", "x" * (3 * HEADER_CHARS_MAX)])
def test_an_answer_without_headers_is_text(answer: str) -> None:
    assert read(HARMONY, answer) == Parts(text=answer)


def test_calls_within_messages_are_read() -> None:
    parts = read(
        ATEM,
        " to=self<|message|>Adding.<|eom|><|start|>assistant to=add<|message|>"
        '<atem:function_calls>\n<atem:invoke name="add">\n'
        '<atem:parameter name="a">1</atem:parameter>\n</atem:invoke>\n</atem:function_calls>',
    )

    assert (parts.thinking, parts.text) == ("Adding.", "")
    assert spelled(parts.calls) == [("add", {"a": 1})]


def test_functionary_answers_all_and_calls_functions() -> None:
    parts = read(FUNCTIONARY, 'all\nI add.>>>add\n{"a": 1}>>>say\n{"what": "3"}')

    assert parts.text == "I add."
    assert spelled(parts.calls) == [("add", {"a": 1}), ("say", {"what": "3"})]

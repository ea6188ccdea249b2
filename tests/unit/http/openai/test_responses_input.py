"""Items of a response's input become the messages of a conversation."""

from __future__ import annotations

from typing import Any

import pytest

from ollamad.errors import InvalidBody
from ollamad.http.openai.responsesinput import messages_of_input
from ollamad.http.openai.responsestools import join_name

USER = {"role": "user", "content": "What is the weather?"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}
CALL = {
    "type": "function_call",
    "call_id": "c1",
    "name": "weather",
    "arguments": '{"city": "Oslo"}',
}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "rain"}
CALLED = {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def messages(value: Any, instructions: str | None = None) -> list[Any]:
    return list(messages_of_input(value, instructions, join_name))


def test_a_text_is_what_the_user_says() -> None:
    assert messages("hello") == [{"role": "user", "content": "hello"}]


def test_instructions_are_the_system_and_those_that_follow_are_part_of_them() -> None:
    items = [
        {"role": "developer", "content": "Be kind."},
        USER,
        {"role": "system", "content": "Now be brief."},
    ]

    assert messages(items, "Be honest.") == [
        {"role": "system", "content": "Be honest.\n\nBe kind."},
        USER,
        {"role": "system", "content": "Now be brief."},
    ]


def test_parts_of_a_message_are_one_text() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    said = [{"type": "output_text", "text": "c"}, {"type": "refusal", "refusal": "d"}]
    items = [
        {"type": "message", "role": "user", "content": parts},
        {"type": "message", "role": "assistant", "content": said, "id": "msg_1"},
    ]

    assert messages(items) == [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "cd"},
    ]


def test_thinking_text_and_calls_of_one_turn_are_one_message() -> None:
    said = {"role": "assistant", "content": "I look."}

    got = messages([USER, THOUGHT, said, CALL, OUTPUT])

    assert got == [
        USER,
        {"role": "assistant", "content": "I look.", "thinking": "Hm.", "tool_calls": [CALLED]},
        {"role": "tool", "content": "rain", "tool_call_id": "c1", "tool_name": "weather"},
    ]


def test_calls_that_follow_each_other_are_one_message() -> None:
    second = {**CALL, "call_id": "c2", "arguments": ""}

    got = messages([USER, CALL, second])

    assert [call["id"] for call in got[1]["tool_calls"]] == ["c1", "c2"]
    assert got[1]["tool_calls"][1]["function"]["arguments"] == {}


def test_a_message_between_a_call_and_its_output_is_part_of_the_call() -> None:
    """Else templates would find a call without its output."""
    got = messages([USER, CALL, {"role": "assistant", "content": "wait"}, OUTPUT])

    assert [message["role"] for message in got] == ["user", "assistant", "tool"]
    assert got[1]["content"] == "wait"


def test_each_turn_has_its_own_thinking() -> None:
    again = {**THOUGHT, "summary": [{"type": "summary_text", "text": "So."}]}
    second = {**CALL, "call_id": "c2"}

    got = messages([USER, THOUGHT, CALL, OUTPUT, again, second])

    assert got[1]["thinking"] == "Hm."
    assert got[3]["thinking"] == "So."


@pytest.mark.parametrize(
    "item",
    [
        {"type": "reasoning", "encrypted_content": "Hm.", "summary": []},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "reasoning", "summary": [{"text": "H"}, {"text": "m."}]},
    ],
)
def test_thinking_is_read_in_whichever_form_it_was_kept(item: dict[str, Any]) -> None:
    got = messages([USER, item, {"role": "assistant", "content": "It rains."}])

    assert got[1] == {"role": "assistant", "content": "It rains.", "thinking": "Hm."}


def test_an_output_may_be_parts() -> None:
    output = {**OUTPUT, "output": [{"type": "input_text", "text": "sun"}]}

    assert messages([USER, CALL, output])[2]["content"] == "sun"


def test_a_tool_of_a_namespace_is_known_by_both_names() -> None:
    got = messages([USER, {**CALL, "namespace": "home"}])

    assert got[1]["tool_calls"][0]["function"]["name"] == "home.weather"


def test_images_are_kept_for_who_may_look_at_them() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}

    (got,) = messages([{"role": "user", "content": [image]}])

    assert got["images"] == ["AAAA"]


@pytest.mark.parametrize(
    ("value", "param", "words"),
    [
        (None, "input", "missing"),
        (3, "input", "must be a string or an array"),
        (["x"], "input[0]", "must be an object"),
        ([USER, {"content": "x"}], "input[1]", "missing required 'type'"),
        ([{"type": "dance"}], "input[0].type", 'unknown input item type: "dance"'),
        ([{"type": ["x"]}], "input[0].type", "unknown input item type"),
        ([{"type": "item_reference", "id": "msg_1"}], "input[0]", "send the item itself"),
        ([{"id": "msg_1"}], "input[0]", "send the item itself"),
        ([{"role": "robot", "content": ""}], "input[0].role", "must be one of"),
        ([{"role": "user", "content": 3}], "input[0].content", "must be a string or an array"),
        ([{"role": "user", "content": [3]}], "input[0].content[0]", "must be an object"),
        (
            [{"role": "user", "content": [{"type": "smell"}]}],
            "input[0].content[0].type",
            'unknown content type: "smell"',
        ),
        (
            [{"role": "user", "content": [{"type": "input_text"}]}],
            "input[0].content[0].text",
            "must be a string",
        ),
        (
            [{"role": "user", "content": [{"type": "input_file"}]}],
            "input[0].content[0]",
            "file inputs are not currently supported",
        ),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": "http://x.org/a.png"}],
                }
            ],
            "input[0].content[0].image_url",
            "please use base64",
        ),
        ([{**CALL, "arguments": "[1]"}], "input[0].arguments", "JSON object"),
        ([{**CALL, "arguments": "{"}], "input[0].arguments", "JSON object"),
        ([{**CALL, "name": None}], "input[0].name", "must be a string"),
        ([{**OUTPUT, "call_id": 1}], "input[0].call_id", "must be a string"),
        ([{"type": "reasoning", "summary": 1}], "input[0].summary", "must be an array"),
    ],
)
def test_what_cannot_be_meant_is_named(value: Any, param: str, words: str) -> None:
    with pytest.raises(InvalidBody) as caught:
        messages(value)

    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")
    assert words in caught.value.message

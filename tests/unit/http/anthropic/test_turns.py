"""Anthropic's blocks become messages that every template knows; what cannot be read is named."""

from __future__ import annotations

from typing import Any

import pytest

from ollamad.errors import InvalidBody
from ollamad.http.anthropic.turns import messages_of
from ollamad.http.anthropic.wire import MessagesRequest
from ollamad.http.decode import decode_body
from tests.unit.http.anthropic.bodies import a_body

CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def read(*messages: object, **fields: object) -> list[dict[str, Any]]:
    body = a_body(messages=list(messages), **fields)
    return messages_of(decode_body(body, MessagesRequest))[0]


def user(*blocks: object) -> dict[str, object]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: object) -> dict[str, object]:
    return {"role": "assistant", "content": list(blocks)}


def text(words: str) -> dict[str, object]:
    return {"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}


def test_a_text_and_a_block_of_text_are_the_same() -> None:
    assert read({"role": "user", "content": "hi"}) == read(user(text("hi")))


def test_the_system_prompt_is_the_first_message_and_its_blocks_are_paragraphs() -> None:
    messages = read(user(text("hi")), system=[text("Be kind."), text("Be brief.")])

    assert messages == [
        {"role": "system", "content": "Be kind.\n\nBe brief."},
        {"role": "user", "content": "hi"},
    ]


def test_turns_of_one_role_in_a_row_are_one_turn() -> None:
    messages = read(
        user(text("a")),
        user(text("b")),
        assistant(text("c")),
        assistant({"type": "thinking", "thinking": "hm", "signature": "x"}, text("d")),
    )

    assert messages == [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "cd", "thinking": "hm"},
    ]


def test_a_result_comes_before_what_the_user_says_with_it_and_knows_its_tools_name() -> None:
    messages = read(user(text("go")), assistant(text("I look."), CALL), user(text("and?"), RESULT))

    assert messages[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": "toolu_1", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
            ],
        },
        {
            "role": "tool",
            "content": "sunny",
            "tool_call_id": "toolu_1",
            "tool_name": "weather",
        },
        {"role": "user", "content": "and?"},
    ]


def test_a_result_whose_call_was_forgotten_has_no_name() -> None:
    (message,) = read(user(RESULT))

    assert message == {"role": "tool", "content": "sunny", "tool_call_id": "toolu_1"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ""),
        ("sunny", "sunny"),
        ([text("sunny"), text("warm")], "sunny\n\nwarm"),
        ([{"type": "document", "source": {"type": "text", "data": "page"}}], "page"),
    ],
)
def test_a_results_content_is_a_text_or_blocks(content: object, expected: str) -> None:
    (message,) = read(user({**RESULT, "content": content}))

    assert message["content"] == expected


def test_thinking_is_taken_back_whoever_signed_it_and_what_nobody_can_read_is_left_out() -> None:
    messages = read(
        assistant(
            {"type": "thinking", "thinking": "one ", "signature": "from elsewhere"},
            {"type": "redacted_thinking", "data": "c2VjcmV0"},
            {"type": "thinking", "thinking": "two"},
            text("Hello"),
        )
    )

    assert messages == [{"role": "assistant", "content": "Hello", "thinking": "one two"}]


def test_what_anthropics_own_tools_did_elsewhere_is_replayed_as_calls_and_results() -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"a": 1}]}

    messages = read(assistant(text("I look."), search, found, text("It is sunny.")))

    assert [message["role"] for message in messages] == ["assistant", "tool", "assistant"]
    assert messages[0]["tool_calls"][0]["function"]["name"] == "web_search"
    assert messages[1]["content"] == '[{"a":1}]'
    assert messages[2]["content"] == "It is sunny."


def test_a_message_that_says_nothing_is_left_out() -> None:
    assert read(user(text("hi")), assistant(text("")), user()) == [
        {"role": "user", "content": "hi"}
    ]


def test_a_document_of_text_is_read_with_its_title() -> None:
    document = {"type": "document", "title": "Notes", "source": {"type": "text", "data": "Buy."}}

    assert read(user(document, text("What?")))[0]["content"] == "Notes\n\nBuy.\n\nWhat?"


def test_images_are_counted_wherever_they_are() -> None:
    image = {"type": "image", "source": PIXEL}
    body = a_body(messages=[user(image, {**RESULT, "content": [image]})])

    assert messages_of(decode_body(body, MessagesRequest))[1] == 2


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "tool", "content": "x"}, 'messages[0].role: expected "user" or "assistant"'),
        ({"role": "user", "content": 1}, "messages[0].content: expected string or array, got int"),
        (user({"text": "x"}), "messages[0].content[0]: the field type is missing"),
        (user({"type": "hologram"}), 'content[0]: blocks of type "hologram" are not supported'),
        (user(CALL), 'messages[0].content[0]: blocks of type "tool_use" are not supported'),
        (assistant(RESULT | {"type": "image"}), 'blocks of type "image" are not supported'),
        (assistant({**CALL, "id": None}), "tool_use block missing required 'id' field"),
        (assistant({**CALL, "name": ""}), "tool_use block missing required 'name' field"),
        (user({"type": "image"}), "invalid image source"),
        (
            user({"type": "image", "source": {"type": "url", "url": "http://x"}}),
            "invalid image source type: url. Only base64 images are supported.",
        ),
        (
            user({"type": "image", "source": {**PIXEL, "data": "no!"}}),
            "invalid base64 image data: messages[0].content[0]",
        ),
        (
            user({"type": "document", "source": {"type": "base64", "data": "JVBERi0="}}),
            'a document\'s source of type "base64" cannot be read here',
        ),
        (user({"type": "document"}), "invalid document source"),
        (user({**RESULT, "content": [3]}), "messages[0].content[0].content: expected a string or"),
        (
            user({**RESULT, "content": [{"type": "tool_reference"}]}),
            'content[0].content[0]: blocks of type "tool_reference" are not supported',
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(message: object, words: str) -> None:
    with pytest.raises(InvalidBody) as caught:
        read(message)

    assert words in caught.value.message


def test_a_system_prompt_is_text_only() -> None:
    with pytest.raises(InvalidBody, match=r'^system\[0\]: blocks of type "image"'):
        read(user(text("hi")), system=[{"type": "image"}])

"""`anthropic`, the official client of Anthropic's API."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic.types import Message

from tests.compat.place import (
    ABOUT_FRANCE,
    ANSWER_TOKENS,
    CALL_TOKENS,
    CHATTER,
    COUNT,
    LONG_TOKENS,
    NOBODY,
    SKY,
    WEATHER,
    Country,
    Place,
    assert_answers,
    assert_calls_weather,
    assert_is_country,
    assert_streamed,
)

GREEDY = {"temperature": 0}
"""The newest client has no argument for it."""
TOOL = {
    "name": WEATHER["function"]["name"],
    "description": WEATHER["function"]["description"],
    "input_schema": WEATHER["function"]["parameters"],
}


class Client:
    """Tries it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client = anthropic.Anthropic(base_url=place.url, api_key="any", max_retries=0)

    def chat(self) -> None:
        assert_answers(_text(self._ask()))

    def streaming(self) -> None:
        with self._client.messages.stream(**self._fields()) as stream:
            parts = list(stream.text_stream)
            message = stream.get_final_message()
        assert_streamed(parts, _text(message))
        assert _text(message) == _text(self._ask())

    def tools(self) -> None:
        for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
            alone = {**choice, "disable_parallel_tool_use": True}
            message = self._ask(tools=[TOOL], tool_choice=alone, max_tokens=CALL_TOKENS)
            (call,) = [block for block in message.content if block.type == "tool_use"]
            assert_calls_weather(call.name, call.input)
            assert message.stop_reason == "tool_use"

    def structured_output(self) -> None:
        message = self._client.messages.parse(
            **self._fields(
                messages=[{"role": "user", "content": ABOUT_FRANCE}],
                output_format=Country,
                max_tokens=CALL_TOKENS,
            )
        )
        assert_is_country(message.parsed_output)

    def errors(self) -> None:
        with pytest.raises(anthropic.NotFoundError, match="model 'nobody' not found"):
            self._ask(model=NOBODY)
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
            self._ask(messages=[{"role": "user", "content": "word " * 5000}])

    def cancellation(self) -> None:
        messages = [{"role": "user", "content": COUNT}]
        with self._place.leaving():
            fields = self._fields(messages=messages, max_tokens=LONG_TOKENS)
            with self._client.messages.stream(**fields) as stream:
                next(iter(stream.text_stream))

    def _ask(self, **fields: Any) -> Message:
        message: Message = self._client.messages.create(**self._fields(**fields))
        return message

    @staticmethod
    def _fields(**fields: Any) -> dict[str, Any]:
        return {
            "model": CHATTER,
            "max_tokens": ANSWER_TOKENS,
            "messages": [{"role": "user", "content": SKY}],
            "extra_body": GREEDY,
            **fields,
        }


def _text(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")

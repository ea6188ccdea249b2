"""`openai`, the official client of OpenAI's API."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.compat.place import (
    ABOUT_FRANCE,
    ANSWER_TOKENS,
    CALL_TOKENS,
    CHATTER,
    COUNT,
    EMBEDDER,
    LONG_TOKENS,
    NOBODY,
    SKY,
    TEXTS,
    WEATHER,
    Country,
    Place,
    assert_answers,
    assert_calls_weather,
    assert_is_country,
    assert_near,
    assert_streamed,
)


class Client:
    """Tries it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client = openai.OpenAI(base_url=f"{place.url}/v1", api_key="any", max_retries=0)

    def chat(self) -> None:
        assert_answers(self._chat().choices[0].message.content)

    def streaming(self) -> None:
        parts = self._chat(stream=True)
        assert_streamed(
            [choice.delta.content for part in parts for choice in part.choices],
            self._chat().choices[0].message.content,
        )

    def tools(self) -> None:
        named = {"type": "function", "function": {"name": "get_weather"}}
        for choice in ("required", named):
            answer = self._chat(tools=[WEATHER], tool_choice=choice, max_tokens=CALL_TOKENS)
            (call,) = answer.choices[0].message.tool_calls
            assert_calls_weather(call.function.name, json.loads(call.function.arguments))
            assert answer.choices[0].finish_reason == "tool_calls"

    def structured_output(self) -> None:
        answer = self._client.chat.completions.parse(
            model=CHATTER,
            messages=[{"role": "user", "content": ABOUT_FRANCE}],
            response_format=Country,
            temperature=0,
            max_tokens=CALL_TOKENS,
        )
        assert_is_country(answer.choices[0].message.parsed)

    def embeddings(self) -> None:
        answer = self._client.embeddings.create(model=EMBEDDER, input=list(TEXTS))
        assert_near([one.embedding for one in answer.data])

    def errors(self) -> None:
        with pytest.raises(openai.NotFoundError, match="model 'nobody' not found"):
            self._chat(model=NOBODY)
        with pytest.raises(openai.BadRequestError) as caught:
            self._chat(messages=[{"role": "user", "content": "word " * 5000}])
        assert caught.value.code == "context_length_exceeded"

    def cancellation(self) -> None:
        with self._place.leaving():
            messages = [{"role": "user", "content": COUNT}]
            stream = self._chat(messages=messages, max_tokens=LONG_TOKENS, stream=True)
            next(stream)
            stream.close()

    def _chat(self, **fields: Any) -> Any:  # a whole answer or a stream of it
        answer: ChatCompletion = self._client.chat.completions.create(
            **{
                "model": CHATTER,
                "messages": [{"role": "user", "content": SKY}],
                "temperature": 0,
                "max_tokens": ANSWER_TOKENS,
                **fields,
            }
        )
        return answer

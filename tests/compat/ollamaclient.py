"""`ollama`, the official client of Ollama's own API."""

from __future__ import annotations

from typing import Any

import ollama
import pytest

from tests.compat.place import (
    ABOUT_FRANCE,
    ANSWER_TOKENS,
    CALL_TOKENS,
    CALLER,
    CHATTER,
    CITIES,
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

GREEDY = {"temperature": 0, "num_predict": ANSWER_TOKENS}
WHOLE = {"temperature": 0, "num_predict": CALL_TOKENS}


class Client:
    """Tries it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client = ollama.Client(place.url)

    def chat(self) -> None:
        assert_answers(self._chat().message.content)

    def streaming(self) -> None:
        parts = self._client.chat(CHATTER, _user(SKY), options=GREEDY, stream=True)
        assert_streamed([part.message.content for part in parts], self._chat().message.content)

    def tools(self) -> None:
        answer = self._client.chat(CALLER, _copied_calls(), tools=[WEATHER], options=WHOLE)
        (call,) = answer.message.tool_calls or ()
        assert_calls_weather(call.function.name, call.function.arguments)

    def structured_output(self) -> None:
        answer = self._client.chat(
            CHATTER,
            _user(ABOUT_FRANCE),
            format=Country.model_json_schema(),
            options=WHOLE,
        )
        assert_is_country(Country.model_validate_json(answer.message.content or ""))

    def embeddings(self) -> None:
        assert_near(self._client.embed(EMBEDDER, TEXTS).embeddings)

    def errors(self) -> None:
        with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as caught:
            self._client.chat(NOBODY, _user(SKY))
        assert caught.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="num_ctx") as caught:
            self._client.chat(CHATTER, _user(SKY), options={"num_ctx": "many"})
        assert caught.value.status_code == 400

    def cancellation(self) -> None:
        with self._place.leaving():
            options = {"temperature": 0, "num_predict": LONG_TOKENS}
            stream = self._client.chat(CHATTER, _user(COUNT), options=options, stream=True)
            next(stream)
            stream.close()  # type: ignore[attr-defined] # an iterator, says its type; a generator

    def _chat(self) -> ollama.ChatResponse:
        return self._client.chat(CHATTER, _user(SKY), options=GREEDY)


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _copied_calls() -> list[dict[str, Any]]:
    """Return a conversation that has called the tool so often that the next call is a copy."""
    messages: list[dict[str, Any]] = []
    for city in CITIES:
        call = {"function": {"name": "get_weather", "arguments": {"city": city}}}
        messages += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_name": "get_weather", "content": "sunny"},
            {"role": "assistant", "content": f"It is sunny in {city}."},
        ]
    return [*messages, {"role": "user", "content": "What is the weather in Paris?"}]

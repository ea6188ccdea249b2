"""`litellm`, which speaks each of the three APIs, by the route that a model's name begins with."""

from __future__ import annotations

import json
import os
from typing import Any

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

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # Else its import asks the network.
import litellm
from litellm import exceptions

_PATHS = {"openai": "/v1"}


class Client:
    """Tries it."""

    def __init__(self, place: Place, route: str) -> None:
        self._place = place
        self._route = route
        self._where = {"api_base": place.url + _PATHS.get(route, ""), "api_key": "any"}

    def chat(self) -> None:
        assert_answers(self._ask().choices[0].message.content)

    def streaming(self) -> None:
        parts = [part.choices[0].delta.content for part in self._ask(stream=True)]
        assert_streamed(parts, self._ask().choices[0].message.content)

    def tools(self) -> None:
        if self._route == "ollama_chat":  # Whose API cannot force a call.
            answer = self._ask(
                CALLER, messages=_copied_calls(), tools=[WEATHER], max_tokens=CALL_TOKENS
            )
        else:
            answer = self._ask(tools=[WEATHER], tool_choice="required", max_tokens=CALL_TOKENS)
        call, *_ = answer.choices[0].message.tool_calls
        assert_calls_weather(call.function.name, json.loads(call.function.arguments))

    def structured_output(self) -> None:
        answer = self._ask(
            messages=[{"role": "user", "content": ABOUT_FRANCE}],
            response_format=Country,
            max_tokens=CALL_TOKENS,
        )
        assert_is_country(Country.model_validate_json(answer.choices[0].message.content))

    def embeddings(self) -> None:
        route = "ollama" if self._route == "ollama_chat" else self._route
        where: dict[str, Any] = self._where
        answer = litellm.embedding(f"{route}/{EMBEDDER}", input=list(TEXTS), **where)
        assert_near([one["embedding"] for one in answer.data])

    def errors(self) -> None:
        # Where a client has no error of its own for a status it raises its common one.
        kinds = (exceptions.NotFoundError, exceptions.APIConnectionError)
        with pytest.raises(kinds, match="model 'nobody' not found"):
            self._ask(NOBODY)

    def cancellation(self) -> None:
        with self._place.leaving():
            messages = [{"role": "user", "content": COUNT}]
            stream = self._ask(messages=messages, max_tokens=LONG_TOKENS, stream=True)
            next(stream)
            stream.close()

    def _ask(self, model: str = CHATTER, **fields: Any) -> Any:  # a whole answer or a stream of it
        return litellm.completion(
            f"{self._route}/{model}",
            **{
                "messages": [{"role": "user", "content": SKY}],
                "temperature": 0,
                "max_tokens": ANSWER_TOKENS,
                **self._where,
                **fields,
            },
        )


def _copied_calls() -> list[dict[str, Any]]:
    """Return a conversation that has called the tool so often that the next call is a copy."""
    messages: list[dict[str, Any]] = []
    for n, city in enumerate(CITIES):
        function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
        call = {"id": f"call_{n}", "type": "function", "function": function}
        messages += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{n}", "content": "sunny"},
            {"role": "assistant", "content": f"It is sunny in {city}."},
        ]
    return [*messages, {"role": "user", "content": "What is the weather in Paris?"}]

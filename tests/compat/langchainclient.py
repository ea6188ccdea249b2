"""`langchain-ollama`: LangChain's chat model and embeddings, over the official client."""

from __future__ import annotations

from typing import Any

import ollama
import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings

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


class Client:
    """Tries it."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def chat(self) -> None:
        assert_answers(self._model().invoke(SKY).text)

    def streaming(self) -> None:
        parts = [part.text for part in self._model().stream(SKY)]
        assert_streamed(parts, self._model().invoke(SKY).text)

    def tools(self) -> None:
        answer = (
            self._model(CALLER, num_predict=CALL_TOKENS)
            .bind_tools([WEATHER])
            .invoke(_copied_calls())
        )
        (call,) = answer.tool_calls
        assert_calls_weather(call["name"], call["args"])

    def structured_output(self) -> None:
        model = self._model(num_predict=CALL_TOKENS).with_structured_output(
            Country, method="json_schema"
        )
        assert_is_country(model.invoke(ABOUT_FRANCE))

    def embeddings(self) -> None:
        embeddings = OllamaEmbeddings(model=EMBEDDER, base_url=self._place.url)
        assert_near(embeddings.embed_documents(list(TEXTS)))

    def errors(self) -> None:
        with pytest.raises(ollama.ResponseError, match="not found") as caught:
            self._model(NOBODY).invoke(SKY)
        assert caught.value.status_code == 404

    def cancellation(self) -> None:
        with self._place.leaving():
            stream = self._model(num_predict=LONG_TOKENS).stream(COUNT)
            next(stream)
            stream.close()  # type: ignore[attr-defined] # an iterator, says its type; a generator

    def _model(self, name: str = CHATTER, **fields: Any) -> ChatOllama:
        return ChatOllama(
            **{
                "model": name,
                "base_url": self._place.url,
                "temperature": 0,
                "num_predict": ANSWER_TOKENS,
                **fields,
            }
        )


def _copied_calls() -> list[BaseMessage]:
    messages: list[BaseMessage] = []
    for n, city in enumerate(CITIES):
        call = {"name": "get_weather", "args": {"city": city}, "id": f"call_{n}"}
        messages += [
            HumanMessage(f"What is the weather in {city}?"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("sunny", tool_call_id=f"call_{n}", name="get_weather"),
            AIMessage(f"It is sunny in {city}."),
        ]
    return [*messages, HumanMessage("What is the weather in Paris?")]

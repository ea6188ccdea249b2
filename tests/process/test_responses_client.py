"""OpenAI's own client and its Responses API, against the real daemon with a real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest
from openai.types.responses import FunctionToolParam, Response, ResponseFunctionToolCall

from tests.process.conftest import MODEL
from tests.process.daemonprocess import DaemonProcess

pytestmark = [pytest.mark.process, pytest.mark.model]

SKY = "Why is the sky blue?"
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 24}
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Oslo", "Rome"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
TIME: FunctionToolParam = {**WEATHER, "name": "get_time"}


class Animal(pydantic.BaseModel):
    """What a model has to say of an animal."""

    name: Literal["cat", "dog", "owl"]
    legs: int
    can_fly: bool


@pytest.fixture
def api(daemon: DaemonProcess) -> Iterator[openai.OpenAI]:
    """The official client, which tries nothing twice."""
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def call_of(response: Response) -> ResponseFunctionToolCall:
    (call,) = response.output
    assert isinstance(call, ResponseFunctionToolCall)
    return call


def test_a_response_has_text_and_counts_its_tokens(api: openai.OpenAI) -> None:
    response = api.responses.create(input=SKY, instructions="Be brief.", **GREEDY)

    assert "sky" in response.output_text.lower()
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 24
    assert response.usage.input_tokens > 10
    assert response.model_dump()["store"] is False


def test_a_stream_says_in_pieces_what_its_end_says_as_a_whole(api: openai.OpenAI) -> None:
    events = list(api.responses.create(input=SKY, stream=True, **GREEDY))

    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 4
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.incomplete"
    assert "".join(deltas) == last.response.output_text
    assert "sky" in last.response.output_text.lower()


def test_the_client_gathers_a_stream_into_a_response(api: openai.OpenAI) -> None:
    with api.responses.stream(
        model=MODEL, input="Say hello.", temperature=0, tools=[WEATHER], tool_choice="required"
    ) as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()

    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert "response.function_call_arguments.done" in kinds
    assert response.output[0].type == "function_call"


def test_an_answer_is_parsed_into_the_class_it_has_to_be(api: openai.OpenAI) -> None:
    response = api.responses.parse(
        model=MODEL, input="Tell me about an animal.", text_format=Animal, temperature=1
    )

    assert isinstance(response.output_parsed, Animal)
    assert response.status == "completed"


def test_any_json_is_an_object(api: openai.OpenAI) -> None:
    response = api.responses.create(
        model=MODEL,
        input="Tell me about a cat, in JSON, with one key.",
        text={
            "format": {
                "type": "json_schema",
                "name": "cat",
                "schema": {"type": "object", "properties": {"cat": {"type": "boolean"}},
                           "required": ["cat"], "additionalProperties": False},
            }
        },
    )  # fmt: skip

    assert set(json.loads(response.output_text)) == {"cat"}


def test_a_call_that_is_required_is_made_with_valid_arguments(api: openai.OpenAI) -> None:
    response = api.responses.create(
        model=MODEL, input="Weather in Rome?", tools=[WEATHER, TIME], tool_choice="required"
    )

    for call in response.output:
        assert isinstance(call, ResponseFunctionToolCall)
        assert call.name in {"get_weather", "get_time"}
        arguments = json.loads(call.arguments)
        assert arguments["city"] in {"Oslo", "Rome"}
        assert 1 <= arguments["days"] <= 7


def test_the_tool_that_is_named_is_called_and_its_output_goes_on(api: openai.OpenAI) -> None:
    question: Any = {"role": "user", "content": "What time is it in Rome?"}
    first = api.responses.create(
        model=MODEL,
        input=[question],
        tools=[WEATHER, TIME],
        tool_choice={"type": "function", "name": "get_time"},
        parallel_tool_calls=False,
    )
    call = call_of(first)
    assert call.name == "get_time"

    items: Any = [
        question,
        *(item.model_dump() for item in first.output),
        {"type": "function_call_output", "call_id": call.call_id, "output": "noon"},
    ]
    second = api.responses.create(input=items, **GREEDY)

    assert second.output_text


def test_log_probabilities_are_those_of_the_tokens(api: openai.OpenAI) -> None:
    response = api.responses.create(
        input=SKY, include=["message.output_text.logprobs"], top_logprobs=2, **GREEDY
    )

    (message,) = response.output
    assert message.type == "message"
    assert message.content[0].type == "output_text"
    logprobs = message.content[0].logprobs
    assert logprobs is not None
    assert len(logprobs) == 24
    for step in logprobs:
        assert step.logprob <= 0
        # Greedy choices are the likeliest tokens.
        assert step.top_logprobs[0].token == step.token
        assert len(step.top_logprobs) == 2


def test_an_earlier_response_is_not_found_in_every_way(api: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as continued:
        api.responses.create(input=SKY, previous_response_id="resp_1", **GREEDY)
    with pytest.raises(openai.NotFoundError, match="not kept"):
        api.responses.retrieve("resp_1")
    with pytest.raises(openai.NotFoundError, match="not kept"):
        api.responses.delete("resp_1")

    assert continued.value.code == "previous_response_not_found"
    assert continued.value.param == "previous_response_id"


def test_errors_are_the_clients_own(api: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        api.responses.create(model="no", input=SKY)
    with pytest.raises(openai.BadRequestError) as searching:
        api.responses.create(model=MODEL, input=SKY, tools=[{"type": "web_search"}])
    with pytest.raises(openai.BadRequestError) as long:
        api.responses.create(model=MODEL, input="word " * 6000)

    assert missing.value.code == "model_not_found"
    assert searching.value.param == "tools[0].type"
    assert long.value.code == "context_length_exceeded"

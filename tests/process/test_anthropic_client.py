"""The official `anthropic` Python client against the real daemon with a real model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import ollama
import pytest
from anthropic.types import Message, MessageParam, ToolParam

from tests.process.conftest import MODEL
from tests.process.daemonprocess import DaemonProcess

pytestmark = [pytest.mark.process, pytest.mark.model]

SKY: list[MessageParam] = [{"role": "user", "content": "Why is the sky blue?"}]
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "Tells the weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}
TIME: ToolParam = {
    "name": "get_time",
    "input_schema": {"type": "object", "properties": {"zone": {"enum": ["utc", "local"]}}},
}
THINKING_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n<think>\n"
)
GREEDY = {"temperature": 0}
"""The newest client has no argument for it."""
FREE_WITHIN_S = 10.0
LONG_TOKENS = 1500


@pytest.fixture
def claude(daemon: DaemonProcess) -> Iterator[anthropic.Anthropic]:
    """The official client, talking to the daemon. It tries nothing twice."""
    with anthropic.Anthropic(base_url=daemon.url, api_key="any", max_retries=0) as talking:
        yield talking


def ask(claude: anthropic.Anthropic, **fields: Any) -> Message:
    message: Message = claude.messages.create(
        **{"model": MODEL, "max_tokens": 24, "messages": SKY, "extra_body": GREEDY, **fields}
    )
    return message


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_is_answered_in_english(claude: anthropic.Anthropic) -> None:
    message = ask(claude)

    assert "sky" in text_of(message).lower()
    assert message.stop_reason == "max_tokens"
    assert message.stop_sequence is None
    assert message.usage.output_tokens == 24
    assert message.usage.cache_creation_input_tokens == 0


def test_the_same_answer_is_streamed(claude: anthropic.Anthropic) -> None:
    whole = ask(claude)

    with claude.messages.stream(
        model=MODEL, max_tokens=24, messages=SKY, extra_body=GREEDY
    ) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()

    assert text_of(message) == text_of(whole)
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 24


def test_a_prompt_that_was_read_before_is_told_as_cached(claude: anthropic.Anthropic) -> None:
    ask(claude)
    usage = ask(claude).usage

    counted = claude.messages.count_tokens(model=MODEL, messages=SKY).input_tokens
    assert (usage.cache_read_input_tokens or 0) > 0
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted


def test_counting_is_exact_with_system_and_conversation(claude: anthropic.Anthropic) -> None:
    fields: dict[str, Any] = {
        "system": [{"type": "text", "text": "You are a pirate."}],
        "messages": [
            *SKY,
            {"role": "assistant", "content": "Arr."},
            {"role": "user", "content": [{"type": "text", "text": "And the sea? \u2764\ufe0f"}]},
        ],
    }

    counted = claude.messages.count_tokens(model=MODEL, **fields).input_tokens
    usage = ask(claude, **fields).usage

    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted


def test_a_stop_sequence_ends_an_answer_and_is_told(claude: anthropic.Anthropic) -> None:
    free = text_of(ask(claude))
    word = free.split()[4]

    message = ask(claude, stop_sequences=["never said", word])

    assert text_of(message) == free[: free.index(word)]
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", word)


def test_an_answer_goes_on_from_its_beginning(claude: anthropic.Anthropic) -> None:
    begun: list[MessageParam] = [*SKY, {"role": "assistant", "content": "Because of Rayleigh"}]

    assert not text_of(ask(claude, messages=begun)).startswith("Because")


@pytest.mark.parametrize(
    ("choice", "tools", "name"),
    [
        ({"type": "tool", "name": "get_weather"}, [TIME, WEATHER], "get_weather"),
        ({"type": "any", "disable_parallel_tool_use": True}, [WEATHER], "get_weather"),
    ],
)
def test_a_tool_that_must_be_called_is_called_with_arguments_of_its_schema(
    claude: anthropic.Anthropic, choice: object, tools: list[ToolParam], name: str
) -> None:
    message = ask(
        claude,
        max_tokens=200,
        tools=tools,
        tool_choice=choice,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
    )

    assert message.stop_reason == "tool_use"
    (call,) = [block for block in message.content if block.type == "tool_use"]
    assert call.name == name
    assert set(call.input) == {"city", "unit"}
    assert call.input["unit"] in {"celsius", "fahrenheit"}


def test_a_forced_call_is_streamed_and_its_result_is_answered(claude: anthropic.Anthropic) -> None:
    question: MessageParam = {"role": "user", "content": "What is the weather in Paris?"}
    with claude.messages.stream(
        model=MODEL,
        max_tokens=200,
        extra_body=GREEDY,
        messages=[question],
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
    ) as stream:
        parts = [event.partial_json for event in stream if event.type == "input_json"]
        message = stream.get_final_message()

    (call,) = [block for block in message.content if block.type == "tool_use"]
    assert json.loads("".join(parts)) == call.input

    answer = ask(
        claude,
        messages=[
            question,
            {"role": "assistant", "content": message.to_param()["content"]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}],
            },
        ],
    )

    assert text_of(answer)


def test_what_was_thought_comes_signed_and_is_taken_back(
    claude: anthropic.Anthropic, client: ollama.Client
) -> None:
    client.create("thinker", from_=MODEL, template=THINKING_TEMPLATE)
    with claude.messages.stream(
        model="thinker",
        max_tokens=1100,
        stop_sequences=["."],
        extra_body=GREEDY,
        thinking={"type": "enabled", "budget_tokens": 1024},
        messages=SKY,
    ) as stream:
        thought = "".join(event.thinking for event in stream if event.type == "thinking")
        message = stream.get_final_message()

    (block,) = message.content
    assert block.type == "thinking"
    assert block.thinking == thought
    assert len(thought) > 5
    assert block.signature

    answer = ask(
        claude,
        model="thinker",
        messages=[*SKY, message.to_param(), {"role": "user", "content": "Go on."}],
    )

    assert answer.content


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"model": "nobody"}, anthropic.NotFoundError, "model 'nobody' not found"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "max_tokens is required"),
        (
            {"messages": [{"role": "user", "content": "word " * 5000}]},
            anthropic.BadRequestError,
            "tokens > 4096 maximum",
        ),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            anthropic.BadRequestError,
            "web_search_20250305",
        ),
    ],
)
def test_errors_are_the_clients_errors(
    claude: anthropic.Anthropic,
    fields: dict[str, object],
    error: type[anthropic.APIStatusError],
    words: str,
) -> None:
    with pytest.raises(error) as caught:
        ask(claude, **fields)

    assert words in caught.value.message
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "error"


def test_who_leaves_in_the_middle_frees_the_slot_at_once(
    claude: anthropic.Anthropic, client: ollama.Client
) -> None:
    began = time.monotonic()
    with claude.messages.stream(
        model=MODEL,
        max_tokens=LONG_TOKENS,
        messages=[{"role": "user", "content": "Count from one to a thousand, in words."}],
        extra_body=GREEDY,
    ) as stream:
        next(iter(stream.text_stream))

    while slots_busy(client):
        assert time.monotonic() - began < FREE_WITHIN_S


def slots_busy(client: ollama.Client) -> int:
    """Return how many slots of all engines are busy."""
    models = client._client.get("/api/ps").json()["models"]
    return sum(model["engine"]["slots_busy"] for model in models if "engine" in model)


def test_models_are_listed_in_anthropics_shape(claude: anthropic.Anthropic) -> None:
    page = claude.models.list()
    model = claude.models.retrieve(MODEL)

    assert MODEL in {one.id for one in page.data}
    assert not page.has_more
    assert model.type == "model"
    assert model.max_input_tokens == 8192

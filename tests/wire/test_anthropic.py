"""Anthropic's shapes on the wire: whole answers, events in their order, errors in both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from ollamad.config import SchedulingConfig
from ollamad.http.anthropic.answers import SIGNATURE
from tests.fakes.launcher import Script
from tests.wire.site import Answer, Site, a_site

URL = "/v1/messages"
HELLO: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "hi <b>"}],
}
TOOL = {"name": "f", "input_schema": {"type": "object"}}
MARKING_TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
    "{% for m in messages %}{{ m.role }}: "
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    " {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
THINKS = "<think>hm </think>yes "
CALLS = THINKS + '<tool_call>{"name": "f", "arguments": {"a": [1, "<"]}}</tool_call>'


def events(answer: Answer) -> list[Any]:
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    read = []
    for block in answer.body.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        read.append(event)
    return read


async def ask(site: Site, **fields: object) -> Answer:
    return await site.ask("POST", URL, {**HELLO, **fields})


async def test_an_answer_is_a_message(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        answer = await ask(site)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert list(answer.json) == [
        "id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage",
    ]  # fmt: skip
    assert answer.json["id"].startswith("msg_")
    assert answer.json["content"] == [{"type": "text", "text": "user: hi <b> "}]
    assert answer.json["stop_reason"] == "end_turn"
    assert answer.json["stop_sequence"] is None
    assert answer.json["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 3,
    }


async def test_a_streamed_answer_is_events_in_order(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await ask(site, stream=True)

    begin, ping, start, *deltas, stop, delta, end = events(answer)
    assert begin["message"]["usage"]["input_tokens"] == 3
    assert begin["message"]["stop_reason"] is None
    assert ping == {"type": "ping"}
    assert start["content_block"] == {"type": "text", "text": ""}
    assert [one["delta"]["text"] for one in deltas] == ["user: ", "hi ", "<b> "]
    assert stop == {"type": "content_block_stop", "index": 0}
    assert delta["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert delta["usage"]["output_tokens"] == 3
    assert end == {"type": "message_stop"}


async def test_thinking_and_calls_are_blocks(tmp_path: Path, autojump_clock: MockClock) -> None:
    script = Script(says=CALLS, token_bytes=1)
    async with a_site(tmp_path, script, chat_template=MARKING_TEMPLATE) as site:
        whole = await ask(site, tools=[TOOL])
        streamed = events(await ask(site, tools=[TOOL], stream=True))

    thinking, text, call = whole.json["content"]
    assert thinking["thinking"].strip() == "hm"
    assert thinking["signature"] == SIGNATURE
    assert text["text"].strip() == "yes"
    assert call["name"] == "f"
    assert call["input"] == {"a": [1, "<"]}
    assert whole.json["stop_reason"] == "tool_use"
    starts = [one["content_block"]["type"] for one in streamed if "content_block" in one]
    assert starts == ["thinking", "text", "tool_use"]
    assert [one["delta"] for one in streamed if one.get("index") == 2 and "delta" in one] == [
        {"type": "input_json_delta", "partial_json": '{"a":[1,"<"]}'}
    ]
    assert streamed[-2]["delta"]["stop_reason"] == "tool_use"


async def test_thinking_that_was_answered_is_taken_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(
        tmp_path, Script(says=THINKS, token_bytes=1), chat_template=MARKING_TEMPLATE
    ) as site:
        first = (await ask(site)).json["content"]
        answer = await ask(
            site,
            messages=[
                *HELLO["messages"],
                {"role": "assistant", "content": first},
                {"role": "user", "content": "and?"},
            ],
        )
        (runner,) = site.house.launcher.started

    assert answer.status == 200
    assert "assistant: <think>hm" in runner.generated[-1].prompt


async def test_the_stop_sequence_that_ended_an_answer_is_told(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        whole = await ask(site, stop_sequences=["xyz", "hi"])
        streamed = events(await ask(site, stop_sequences=["hi"], stream=True))

    assert whole.json["content"] == [{"type": "text", "text": "user: "}]
    assert (whole.json["stop_reason"], whole.json["stop_sequence"]) == ("stop_sequence", "hi")
    assert streamed[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "hi"}


async def test_a_last_message_of_the_assistant_is_continued(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        await ask(site, messages=[*HELLO["messages"], {"role": "assistant", "content": "It is"}])
        (runner,) = site.house.launcher.started

    assert runner.generated[0].prompt.startswith("user: hi <b>")
    assert runner.generated[0].prompt.endswith("It is")


async def test_tokens_are_counted_as_an_answer_counts_them(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        counted = await site.ask(
            "POST", f"{URL}/count_tokens", {"model": "tiny", "messages": HELLO["messages"]}
        )
        answer = await ask(site)
        await wait_all_tasks_blocked()
        (view,) = site.house.supervisor.residents()

    assert counted.json == {"input_tokens": answer.json["usage"]["input_tokens"]}
    assert view.n_leases == 0


async def test_also_what_does_not_fit_is_counted(tmp_path: Path, autojump_clock: MockClock) -> None:
    long = [{"role": "user", "content": "word " * 1000}]
    async with a_site(tmp_path) as site:
        counted = await site.ask("POST", f"{URL}/count_tokens", {"model": "tiny", "messages": long})
        refused = await ask(site, messages=long)

    assert counted.json == {"input_tokens": 1001}
    assert refused.status == 400
    assert refused.json["error"]["type"] == "invalid_request_error"
    assert refused.json["error"]["message"] == "prompt is too long: 1001 tokens > 128 maximum"


async def test_an_answer_that_its_runner_cannot_end_ends_with_an_error_event(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    scheduling = SchedulingConfig(heal_attempts_max=0)
    async with a_site(tmp_path, Script(dies_after_words=1), scheduling=scheduling) as site:
        *begun, error = events(await ask(site, stream=True))

    assert begun[0]["type"] == "message_start"
    assert error["type"] == "error"
    assert error["error"]["type"] == "api_error"
    assert "SIGKILL" in error["error"]["message"]
    assert error["request_id"].startswith("req_")


@pytest.mark.parametrize(
    ("fields", "status", "kind", "words"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens is required"),
        ({"max_tokens": 0}, 400, "invalid_request_error", "must be positive"),
        ({"model": ""}, 400, "invalid_request_error", "model is required"),
        ({"model": "nobody"}, 404, "not_found_error", "model 'nobody' not found"),
        ({"tools": [TOOL]}, 400, "invalid_request_error", "does not support tools"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            400,
            "invalid_request_error",
            "web_search_20250305",
        ),
        ({"max_tokens": "many"}, 400, "invalid_request_error", "max_tokens: expected integer"),
    ],
)
async def test_errors_have_anthropics_shape(
    fields: dict[str, object],
    status: int,
    kind: str,
    words: str,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path) as site:
        answer = await ask(site, **fields)

    assert answer.status == status
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == kind
    assert words in answer.json["error"]["message"]


async def test_a_full_queue_is_an_overload_with_a_time_to_come_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, scheduling=SchedulingConfig(queue_length_max=0)) as site:
        answer = await ask(site, stream=True)

    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json["error"]["type"] == "overloaded_error"


async def test_anthropics_clients_see_models_in_their_shape(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    version = {"anthropic-version": "2023-06-01"}
    async with a_site(tmp_path) as site:
        page = await site.ask("GET", "/v1/models", **version)
        one = await site.ask("GET", "/v1/models/library/tiny:latest", **version)
        nobody = await site.ask("GET", "/v1/models/nobody", **version)

    (model,) = page.json["data"]
    assert (page.json["first_id"], page.json["last_id"]) == ("tiny:latest", "tiny:latest")
    assert page.json["has_more"] is False
    assert model["type"] == "model"
    assert model["max_input_tokens"] == 128
    assert one.json == {**model, "id": "library/tiny:latest", "display_name": "library/tiny:latest"}
    assert nobody.status == 404
    assert nobody.json["error"]["type"] == "not_found_error"

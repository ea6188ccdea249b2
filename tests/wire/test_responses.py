"""/v1/responses on fakes in virtual time: answers, events, refusals, failures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai.types.responses as theirs
import pytest
from trio.testing import MockClock

from ollamad.names import ModelName
from ollamad.registry.create import CreateSpec
from tests.builders import a_gguf_blob, created
from tests.fakes.launcher import Script
from tests.wire.site import Answer, Site, a_site
from tests.wire.test_openapi import check_answer

PATH = "/v1/responses"
HI = {"model": "tiny", "input": "hi there"}
TEMPLATE = (
    "{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and m.reasoning_content %}"
    "<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
SAYS = (
    "<think>\nHm.\n</think>\n\nI look.<tool_call>\n"
    '{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
)
ASK = {"model": "able", "input": "Weather?", "tools": [WEATHER]}


@asynccontextmanager
async def an_able_site(folder: Path, *scripts: Script) -> AsyncIterator[Site]:
    """Serve a model that thinks and calls tools, `able`, beside `tiny`."""
    async with a_site(folder, *(scripts or (Script(says=SAYS, token_bytes=5),))) as site:
        digest = a_gguf_blob(site.store, folder, chat_template=TEMPLATE, n_ctx_train=4096)
        spec = CreateSpec(name=ModelName.parse("able"), files={"able.gguf": str(digest)})
        created(site.store, spec)
        yield site


def events_of(answer: Answer) -> list[Any]:
    found = []
    for block in answer.body.decode().split("\n\n")[:-1]:
        name, _, body = block.partition("\n")
        event = json.loads(body.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


async def test_a_response_is_one_object_with_all_keys(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", PATH, {**HI, "metadata": {"a": "b"}, "store": True})

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    told = answer.json
    assert list(told) == [
        "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model",
        "previous_response_id", "instructions", "output", "error", "tools", "tool_choice",
        "truncation", "parallel_tool_calls", "text", "top_p", "presence_penalty",
        "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage",
        "max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata",
        "safety_identifier", "prompt_cache_key", "user",
    ]  # fmt: skip
    assert told["status"] == "completed"
    assert told["created_at"] == told["completed_at"] == 1787306400
    assert told["store"] is False
    assert told["metadata"] == {"a": "b"}
    assert told["temperature"] == 1.0
    (message,) = told["output"]
    assert message["content"][0]["text"] == "user: hi there "
    assert told["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 6,
    }
    check_answer("POST", PATH, 200, told)
    theirs.Response.model_validate(told, strict=True)


async def test_a_streamed_response_is_events_from_created_to_completed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", PATH, {**HI, "stream": True})

    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    events = events_of(answer)
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["usage"] is None
    last = events[-1]["response"]
    assert last["output"] == [events[-2]["item"]]
    assert last["usage"]["output_tokens"] == 3
    assert not answer.body.endswith(b"[DONE]\n\n")


async def test_thinking_text_and_calls_are_items_streamed_or_not(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with an_able_site(tmp_path) as site:
        whole = (await site.ask("POST", PATH, ASK)).json
        events = events_of(await site.ask("POST", PATH, {**ASK, "stream": True}))

    streamed = events[-1]["response"]
    for told in (whole, streamed):
        thought, said, called = told["output"]
        assert thought["type"] == "reasoning"
        assert thought["summary"][0]["text"].strip() == "Hm."
        assert said["content"][0]["text"].strip() == "I look."
        assert called["name"] == "weather"
        assert json.loads(called["arguments"]) == {"city": "Oslo"}
        assert called["call_id"]
        assert 0 < told["usage"]["output_tokens_details"]["reasoning_tokens"] < 8
    deltas = [e["delta"] for e in events if e["type"] == "response.reasoning_summary_text.delta"]
    assert "".join(deltas) == streamed["output"][0]["summary"][0]["text"]


async def test_what_the_model_is_shown_is_the_whole_conversation(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "id": "rs_1"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
    ]
    async with an_able_site(tmp_path) as site:
        body = {**ASK, "input": items, "instructions": "Be brief.", "max_output_tokens": 9}
        answer = await site.ask("POST", PATH, {**body, "top_p": 0.5})
        (asked,) = site.house.launcher.started[0].generated

    assert answer.status == 200
    shown = asked.prompt
    assert '"name": "weather"' in shown
    for text in ("system\nBe brief.", "user\nWeather?", "Hm.", "tool\nrain"):
        assert text in shown, text
    assert asked.sampling.num_predict == 9
    assert (asked.sampling.temperature, asked.sampling.top_p) == (1.0, 0.5)


async def test_a_tool_that_must_not_be_called_is_not_shown(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with an_able_site(tmp_path) as site:
        answer = await site.ask("POST", PATH, {**ASK, "tool_choice": "none"})
        (asked,) = site.house.launcher.started[0].generated

    assert answer.json["tool_choice"] == "none"
    assert "weather" not in asked.prompt


async def test_a_schema_for_the_text_reaches_the_engine_and_comes_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    text = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}}
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", PATH, {**HI, "text": text})
        (asked,) = site.house.launcher.started[0].generated

    assert asked.grammar is not None
    assert json.loads(asked.grammar.text) == schema
    assert answer.json["text"]["format"] == text["format"]


async def test_an_answer_cut_by_its_limit_is_incomplete(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Ollama calls it completed, and clients go on with half an answer."""
    body = {**HI, "max_output_tokens": 2}
    async with a_site(tmp_path) as site:
        whole = (await site.ask("POST", PATH, body)).json
        events = events_of(await site.ask("POST", PATH, {**body, "stream": True}))

    assert events[-1]["type"] == "response.incomplete"
    for told in (whole, events[-1]["response"]):
        assert told["status"] == "incomplete"
        assert told["incomplete_details"] == {"reason": "max_output_tokens"}
        assert told["completed_at"] is None
        assert told["output"][0]["status"] == "incomplete"


async def test_an_error_after_the_first_event_is_told_and_ends_the_stream(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Ollama's stream just ends."""
    async with a_site(tmp_path, Script(dies_after_words=1)) as site:
        answer = await site.ask("POST", PATH, {**HI, "stream": True})

    assert answer.status == 200
    *_, failed, error = events_of(answer)
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["output"][0]["status"] == "incomplete"
    assert "SIGKILL" in failed["response"]["error"]["message"]
    assert error["type"] == "error"
    assert error["error"]["type"] == "api_error"


async def test_an_error_before_the_first_word_has_its_own_status(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, Script(load_fails="broken tensor")) as site:
        answer = await site.ask("POST", PATH, {**HI, "stream": True})

    assert answer.status == 500
    assert answer.json["error"]["type"] == "api_error"
    check_answer("POST", PATH, 500, answer.json)


@pytest.mark.parametrize(
    ("more", "param", "code", "words"),
    [
        ({"model": ""}, "model", None, "missing"),
        ({"input": None}, "input", None, "missing"),
        ({"input": []}, "input", None, "nothing to answer"),
        (
            {"previous_response_id": "resp_1"},
            "previous_response_id",
            "previous_response_not_found",
            "send the whole conversation",
        ),
        ({"conversation": "c"}, "conversation", "unsupported_parameter", "send the whole"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter", "send instructions"),
        ({"background": True}, "background", "unsupported_parameter", "not kept"),
        ({"truncation": "some"}, "truncation", None, '"auto" or "disabled"'),
        ({"top_logprobs": 21}, "top_logprobs", None, "between 0 and 20"),
        ({"max_output_tokens": 0}, "max_output_tokens", None, "at least 1"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", None, "at most 16 pairs"),
        ({"metadata": {"k" * 65: ""}}, "metadata", None, "at most 64"),
        ({"metadata": {"k": "v" * 513}}, "metadata", None, "at most 512"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", None, "json_schema"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", None, "JSON Schema"),
        ({"reasoning": {"effort": "much"}}, "reasoning.effort", None, '"minimal"'),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", None, '"web_search"'),
    ],
)
async def test_what_cannot_be_meant_is_400_and_names_the_field(
    more: dict[str, Any],
    param: str,
    code: str | None,
    words: str,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", PATH, {**HI, **more})

    assert answer.status == 400
    error = answer.json["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code)
    assert words in error["message"]


async def test_limits_themselves_are_taken(tmp_path: Path, autojump_clock: MockClock) -> None:
    metadata = {f"{n:064}": "v" * 512 for n in range(16)}
    body = {**HI, "metadata": metadata, "top_logprobs": 20, "max_output_tokens": 2**40}
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", PATH, body)

    assert answer.status == 200


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tools": [WEATHER]}, "does not support tools"),
        ({"reasoning": {"effort": "high"}}, "does not support thinking"),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
                        ],
                    }
                ]
            },
            "does not support images",
        ),
    ],
)
async def test_what_the_model_cannot_do_is_400(
    more: dict[str, Any], words: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", PATH, {**HI, **more})

    assert answer.status == 400
    assert words in answer.json["error"]["message"]


async def test_a_model_that_is_not_here_is_404(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", PATH, {**HI, "model": "no"})

    assert answer.status == 404
    assert answer.json["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_earlier_response_is_404_with_a_reason(
    method: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask(method, PATH + "/resp_1")

    assert answer.status == 404
    assert answer.json["error"]["type"] == "not_found_error"
    assert "'resp_1' not found: responses are not kept" in answer.json["error"]["message"]
    check_answer(method, PATH + "/{response_id}", 404, answer.json)


LONG = [{"role": "user", "content": "word " * 100}, {"role": "user", "content": "last"}]


async def test_what_does_not_fit_is_refused_or_cut_as_asked(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        refused = await site.ask("POST", PATH, {**HI, "input": [*LONG, *LONG]})
        cut = await site.ask("POST", PATH, {**HI, "input": [*LONG, *LONG], "truncation": "auto"})

    assert refused.status == 400
    assert refused.json["error"]["code"] == "context_length_exceeded"
    assert cut.status == 200
    assert cut.json["truncation"] == "auto"
    assert "last" in cut.json["output"][0]["content"][0]["text"]

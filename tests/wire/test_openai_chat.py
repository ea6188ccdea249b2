"""/v1/chat/completions on fakes: what is asked of runners, and what goes over the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ollamad.config import HttpConfig, SchedulingConfig
from ollamad.runners.protocol import Generate, GrammarKind
from tests.fakes.launcher import Script
from tests.wire.openaiwords import chat, data_of, deltas_of, events_of, text_of
from tests.wire.site import NOW, Site, a_site
from tests.wire.templates import OPENING, THINKING, TOOLS

CREATED = int(NOW.timestamp())
ADD: dict[str, Any] = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
}
SUB: dict[str, Any] = {"type": "function", "function": {"name": "sub"}}
CALL = Script(
    says='Wait. <tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call>', token_bytes=5
)
THOUGHT = Script(says="<think>two and two</think>It is four.", token_bytes=3)
HELLO = Script(says="hello you there")


def requests_of(site: Site) -> list[Generate]:
    """Return what the only runner was asked to generate."""
    return site.house.launcher.started[0].generated


async def test_an_answer_is_one_object_in_openais_order(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await chat(site)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    whole = answer.json
    assert whole.pop("id").startswith("chatcmpl-")
    assert list(whole.items()) == [
        ("object", "chat.completion"),
        ("created", CREATED),
        ("model", "tiny"),
        ("system_fingerprint", "fp_ollama"),
        (
            "choices",
            [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "hello you there "},
                    "finish_reason": "stop",
                }
            ],
        ),
        (
            "usage",
            {
                "prompt_tokens": 3,
                "completion_tokens": 3,
                "total_tokens": 6,
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
        ),
    ]


async def test_a_stream_is_events_with_one_id_and_the_role_in_the_first(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await chat(site, stream=True)

    assert answer.headers["content-type"] == "text/event-stream"
    events = events_of(answer)
    head = {
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": "tiny",
        "system_fingerprint": "fp_ollama",
    }
    assert len({event.pop("id") for event in events}) == 1
    assert events == [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in (
            ({"role": "assistant", "content": "hello "}, None),
            ({"content": "you "}, None),
            ({"content": "there "}, None),
            ({}, "stop"),
        )
    ]


async def test_the_usage_is_told_in_the_last_event_to_those_who_ask(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await chat(site, stream=True, stream_options={"include_usage": True})

    *events, last = events_of(answer)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 6
    assert not any("usage" in event for event in events)


async def test_a_stream_of_nothing_still_has_a_role(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await chat(site, stream=True, stop="hello")

    assert deltas_of(answer) == [{"role": "assistant", "content": ""}, {}]


# Thinking and calls


@pytest.mark.parametrize("stream", [True, False])
async def test_thoughts_are_reasoning_and_are_counted(
    stream: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, THOUGHT, chat_template=THINKING) as site:
        answer = await chat(site, stream=stream, stream_options={"include_usage": True})

    if stream:
        deltas = deltas_of(answer)
        thinking = "".join(delta.get("reasoning", "") for delta in deltas)
        text, usage = text_of(answer), events_of(answer)[-1]["usage"]
        assert all(delta["content"] == "" for delta in deltas if "reasoning" in delta)
    else:
        message, usage = answer.json["choices"][0]["message"], answer.json["usage"]
        thinking, text = message["reasoning"], message["content"]
    assert (thinking, text) == ("two and two", "It is four.")
    n_thinking = usage["completion_tokens_details"]["reasoning_tokens"]
    assert 4 <= n_thinking <= 9 < usage["completion_tokens"]  # With its marks, or without.


@pytest.mark.parametrize(
    ("fields", "begins"),
    [
        ({}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning": {"effort": "none"}, "reasoning_effort": "high"}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"think": False, "reasoning_effort": "high"}, False),
    ],
)
async def test_who_does_not_want_thoughts_says_so_in_several_ways(
    fields: dict[str, Any], begins: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    switched = OPENING.replace(
        "assistant: <think>", "assistant: {% if enable_thinking %}<think>{% endif %}"
    )
    async with a_site(tmp_path, chat_template=switched) as site:
        answer = await chat(site, _debug_render_only=True, **fields)

    rendered = answer.json["_debug_info"]["rendered_template"]
    assert rendered.endswith("<think>") is begins


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_is_whole_and_its_arguments_are_a_text(
    stream: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, CALL, chat_template=TOOLS) as site:
        answer = await chat(site, tools=[ADD], stream=stream)

    if stream:
        choices = [event["choices"][0] for event in events_of(answer)]
        (message,) = (one["delta"] for one in choices if "tool_calls" in one["delta"])
        assert choices[-1]["finish_reason"] == "tool_calls"
    else:
        (choice,) = answer.json["choices"]
        message = choice["message"]
        assert choice["finish_reason"] == "tool_calls"
        assert message["content"].strip() == "Wait."
    (call,) = message["tool_calls"]
    assert call.pop("id").startswith("call_")
    assert call == {
        "index": 0,
        "type": "function",
        "function": {"name": "add", "arguments": '{"a":2}'},
    }


async def test_a_tool_that_must_be_called_is_a_grammar_and_none_is_no_tool(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    named = {"type": "function", "function": {"name": "add"}}
    allowed = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [named]},
    }
    async with a_site(tmp_path, CALL, chat_template=TOOLS) as site:
        for choice in (None, "auto", "none", "required", named, allowed):
            await chat(site, tools=[ADD, SUB], tool_choice=choice)
        asked = requests_of(site)

    kinds = [request.grammar and request.grammar.kind for request in asked]
    assert kinds == [None, None, None, *[GrammarKind.LARK] * 3]
    assert "sub" in asked[0].prompt
    assert "add" not in asked[2].prompt
    assert "sub" not in asked[5].prompt
    texts = [request.grammar.text if request.grammar else "" for request in asked]
    assert "sub" in texts[3]
    assert "sub" not in texts[4] + texts[5]


async def test_one_call_at_a_time_is_kept_to(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path, CALL, chat_template=TOOLS) as site:
        await chat(site, tools=[ADD], parallel_tool_calls=False)
        (request,) = requests_of(site)

    assert request.grammar is not None


async def test_the_conversation_reaches_the_template(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Parts are one message, a developer is the system, and a result finds its tool's name."""
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "2+2?"}, {"type": "text", "text": "Now!"}],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": 2}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "4"}]},
    ]
    template = TOOLS.replace(
        "{{ m.role }}: {{ m.content }}",
        "{{ m.role }}({{ m.name or '' }},{{ m.reasoning_content or '' }}): {{ m.content }}",
    )
    async with a_site(tmp_path, chat_template=template) as site:
        answer = await chat(site, messages=messages, tools=[ADD], _debug_render_only=True)

    rendered = answer.json["_debug_info"]["rendered_template"]
    assert "system(,): Be brief. user(,): 2+2?\nNow! assistant(,hm): <tool_call>" in rendered
    assert "tool(add,): 4 assistant" in rendered


async def test_a_template_that_knows_developers_gets_them(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    knows = "{% if messages[0].role == 'developer' %}D {% endif %}" + THINKING
    async with a_site(tmp_path, chat_template=knows) as site:
        messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}]
        answer = await chat(site, messages=messages, _debug_render_only=True)

    assert answer.json["_debug_info"]["rendered_template"].startswith("D developer: x")


# What is asked of the runner


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"temperature": 1.0, "top_p": 1.0, "num_predict": -1, "top_k": 40}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"max_tokens": 7}, {"num_predict": 7}),
        ({"max_tokens": 7, "max_completion_tokens": 5}, {"num_predict": 5}),
        ({"max_tokens": 2**60}, {"num_predict": 2**31 - 1}),
        ({"max_tokens": -1}, {"num_predict": -1}),
        ({"seed": 5}, {"seed": 5}),
        ({"seed": 2**63 - 1}, {"seed": 2**31 - 1}),
        ({"stop": "x"}, {"stop": ("x",)}),
        ({"stop": ["x", "y"]}, {"stop": ("x", "y")}),
        ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}),
        ({"presence_penalty": -0.5}, {"presence_penalty": -0.5}),
        ({"logit_bias": {"7": -100, "3": 1}}, {"logit_bias": ((3, 1.0), (7, -100.0))}),
        ({"top_k": 5, "min_p": 0.1}, {"top_k": 5, "min_p": 0.1}),
        ({"repeat_penalty": 1.1}, {"repeat_penalty": 1.1}),
        ({"repetition_penalty": 1.2}, {"repeat_penalty": 1.2}),
        ({"options": {"temperature": 0.3, "top_k": 9}}, {"temperature": 0.3, "top_k": 9}),
        ({"options": {"temperature": 0.3}, "temperature": 0.4}, {"temperature": 0.4}),
        ({"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto"}, {}),
    ],
)
async def test_fields_are_options(
    fields: dict[str, Any], expected: dict[str, Any], tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await chat(site, **fields)
        (request,) = requests_of(site)

    assert answer.status == 200
    found = {name: getattr(request.sampling, name) for name in expected}
    assert found == expected


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, GrammarKind.JSON),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}},
                }
            },
            GrammarKind.JSON_SCHEMA,
        ),
        (
            {"response_format": {"type": "json_object", "schema": {"type": "object"}}},
            GrammarKind.JSON_SCHEMA,
        ),
        ({"guided_json": {"type": "object"}}, GrammarKind.JSON_SCHEMA),
        ({"guided_json": '{"type": "object"}'}, GrammarKind.JSON_SCHEMA),
        ({"guided_regex": "[a-z]+"}, GrammarKind.REGEX),
        ({"guided_choice": ["yes", "no"]}, GrammarKind.LARK),
        ({"guided_grammar": 'start: "a"'}, GrammarKind.LARK),
        ({"grammar": 'root ::= "a"'}, GrammarKind.GBNF),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, GrammarKind.LARK),
        ({"structured_outputs": {"regex": "[a-z]+"}}, GrammarKind.REGEX),
    ],
)
async def test_what_a_text_must_look_like_is_a_grammar(
    fields: dict[str, Any],
    kind: GrammarKind | None,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await chat(site, **fields)
        (request,) = requests_of(site)

    assert answer.status == 200
    assert (request.grammar and request.grammar.kind) == kind


async def test_log_probabilities_are_asked_for_as_many_as_wanted(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        await chat(site)
        await chat(site, logprobs=True)
        await chat(site, logprobs=True, top_logprobs=3)
        asked = [request.n_logprobs for request in requests_of(site)]

    assert asked == [None, 0, 3]


# Several answers


async def test_several_answers_are_told_with_their_index_and_have_seeds_of_their_own(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await chat(site, n=3, seed=5)
        seeds = [request.sampling.seed for request in requests_of(site)]

    assert [choice["index"] for choice in answer.json["choices"]] == [0, 1, 2]
    assert seeds == [5, 6, 7]
    usage = answer.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 9)


async def test_several_answers_are_streamed_side_by_side(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await chat(site, n=2, stream=True, stream_options={"include_usage": True})
        await wait_all_tasks_blocked()
        (view,) = site.house.supervisor.residents()

    *events, last = events_of(answer)
    order = [event["choices"][0]["index"] for event in events]
    assert sorted(order) == [0] * 4 + [1] * 4
    assert set(order[:2]) == {0, 1}, "neither waits for the other"
    assert text_of(answer, 0) == text_of(answer, 1) == "hello you there "
    assert deltas_of(answer, 1)[0]["role"] == "assistant"
    assert last["usage"]["completion_tokens"] == 6
    assert view.n_leases == 0


async def test_a_client_that_leaves_ends_all_of_its_answers(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    script = Script(says="word " * 50)
    async with a_site(tmp_path, script) as site:
        await chat(site)
        with trio.move_on_after(0.2) as patience:
            await chat(site, n=2, stream=True)
        await wait_all_tasks_blocked()
        runner = site.house.launcher.started[0]
        (view,) = site.house.supervisor.residents()

    assert patience.cancelled_caught
    assert len(runner.cancelled) == 2
    assert view.n_leases == 0


async def test_more_answers_than_allowed_are_refused_with_the_setting_s_name(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO, http=HttpConfig(answers_max=2)) as site:
        allowed = await chat(site, n=2)
        answer = await chat(site, n=3)

    assert allowed.status == 200
    assert answer.status == 400
    assert answer.json["error"]["param"] == "n"
    assert "http.answers_max" in answer.json["error"]["message"]


# Errors


@pytest.mark.parametrize("n", [1, 2])
async def test_an_error_in_a_stream_is_an_event_and_nothing_follows(
    n: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    dies = Script(says="one two three four", dies_after_words=2)
    scheduling = SchedulingConfig(heal_attempts_max=0)
    async with a_site(tmp_path, dies, scheduling=scheduling) as site:
        answer = await chat(site, stream=True, n=n)

    assert answer.status == 200
    *_, last = data_of(answer)
    error = json.loads(last)["error"]
    assert error["type"] == "api_error"
    assert error["message"]
    assert "[DONE]" not in data_of(answer)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "new"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "f", "arguments": "{"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 1e300}, "temperature"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": [5]}, "stop"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"options": {"top_k": "x"}}, "options"),
        ({"keep_alive": "5"}, "keep_alive"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"think": "huge"}, "think"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"function": {}}]}, "tools[0].function.name"),
        ({"tools": [ADD, ADD]}, "tools[1].function.name"),
        ({"tool_choice": "often"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
        ),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"type": "object", "minProperties": "x"}},
                }
            },
            "response_format.json_schema.schema",
        ),
        ({"guided_regex": 5}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"stream_options": 5}, "stream_options"),
    ],
)
async def test_a_wrong_field_is_named(
    fields: dict[str, Any], param: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, chat_template=TOOLS) as site:
        answer = await chat(site, **fields)
        started = site.house.launcher.started

    error = answer.json["error"]
    assert (answer.status, error["type"]) == (400, "invalid_request_error")
    assert error["param"] == param, error["message"]
    assert started == []


async def test_a_model_that_is_not_there_has_a_code(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await chat(site, model="x")

    assert answer.status == 404
    assert answer.json == {
        "error": {
            "message": "model 'x' not found",
            "type": "not_found_error",
            "param": None,
            "code": "model_not_found",
        }
    }


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await chat(site, messages=[{"role": "user", "content": "word " * 300}])

    error = answer.json["error"]
    assert (answer.status, error["code"]) == (400, "context_length_exceeded")
    assert "the prompt has 301 tokens, but the context holds 128" in error["message"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reasoning_effort": "high"}, '"tiny" does not support thinking'),
        ({"tools": [ADD]}, "registry.ollama.ai/library/tiny:latest does not support tools"),
    ],
)
async def test_what_a_model_cannot_do_is_said(
    fields: dict[str, Any], message: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await chat(site, **fields)

    assert answer.status == 400
    assert answer.json["error"]["message"] == message


async def test_a_limit_on_tokens_ends_an_answer_with_length(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await chat(site, max_tokens=2)

    assert answer.json["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/audio/speech", "models that hear or speak are not supported"),
        ("/v1/images/generations", "models that make images are not supported"),
        ("/v1/files", "Unknown request URL: POST /v1/files"),
    ],
)
async def test_what_is_not_there_is_said_in_openais_shape(
    path: str, words: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", path, {})

    assert answer.status == 404
    assert words in answer.json["error"]["message"]

"""What models think, call and may say, through Ollama's two doors; answers are scripted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from ollamad.runners.protocol import Grammar, GrammarKind
from tests.fakes.launcher import Script
from tests.wire.site import Answer, Site, a_site
from tests.wire.templates import OPENING, THINKING, TOOLS

THOUGHT = Script(says="<think>two and two</think>It is four.", token_bytes=3)
CALL = Script(
    says='Wait. <tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call>', token_bytes=5
)
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
GENERATE, CHAT = "/api/generate", "/api/chat"


async def ask(site: Site, path: str, **fields: Any) -> Answer:
    """Ask one question in the words of *path*."""
    question: dict[str, Any] = {"prompt": "hi"}
    if path == CHAT:
        question = {"messages": [{"role": "user", "content": "hi"}]}
    return await site.ask("POST", path, {"model": "tiny", **question, **fields})


def said(answer: Answer) -> tuple[str, str]:
    """Return all of an answer's thinking and all of its text."""
    parts = [line.get("message") or line for line in answer.lines]
    thinking = "".join(part.get("thinking", "") for part in parts)
    return thinking, "".join(part.get("content", part.get("response", "")) for part in parts)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [GENERATE, CHAT])
async def test_thoughts_are_told_apart(
    path: str, stream: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, THOUGHT, chat_template=THINKING) as site:
        answer = await ask(site, path, stream=stream)

    assert said(answer) == ("two and two", "It is four.")


@pytest.mark.parametrize("path", [GENERATE, CHAT])
async def test_a_line_has_thoughts_or_text_and_thoughts_come_first(
    path: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, THOUGHT, chat_template=THINKING) as site:
        answer = await ask(site, path, think=True)

    parts = [line.get("message") or line for line in answer.lines[:-1]]
    kinds = ["thinking" in part for part in parts]
    assert kinds == sorted(kinds, reverse=True)
    assert {True, False} == set(kinds)


async def test_thinking_stands_after_the_response(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, THOUGHT, chat_template=THINKING) as site:
        answer = await ask(site, GENERATE, stream=False)

    assert list(answer.json)[:5] == ["model", "created_at", "response", "thinking", "done"]


async def test_thinking_that_the_prompt_opens_is_thinking(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    script = Script(says="hm</think>yes", token_bytes=2)
    async with a_site(tmp_path, script, chat_template=OPENING) as site:
        answer = await ask(site, GENERATE)

    assert said(answer) == ("hm", "yes")


@pytest.mark.parametrize("path", [GENERATE, CHAT])
async def test_a_model_that_thinks_although_it_shall_not_does_so_in_its_text(
    path: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, THOUGHT, chat_template=THINKING) as site:
        answer = await ask(site, path, think=False)

    assert said(answer) == ("", THOUGHT.says)


async def test_raw_answers_are_not_taken_apart(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path, THOUGHT, chat_template=THINKING) as site:
        answer = await ask(site, GENERATE, raw=True)

    assert said(answer) == ("", THOUGHT.says)


async def test_a_template_of_the_request_says_how_its_answer_is_read(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, THOUGHT) as site:
        answer = await ask(site, GENERATE, template=THINKING)

    assert said(answer) == ("two and two", "It is four.")


# What an answer must look like


@pytest.mark.parametrize("path", [GENERATE, CHAT])
@pytest.mark.parametrize(
    ("template", "think", "opening", "closing"),
    [
        (THINKING, None, "<think>", "</think>"),
        (THINKING, False, "", ""),
        (OPENING, True, "", "</think>"),
        (OPENING, False, "", "</think>"),
    ],
)
async def test_a_format_holds_for_what_comes_after_the_thoughts(
    path: str,
    template: str,
    think: bool | None,
    opening: str,
    closing: str,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path, THOUGHT, chat_template=template) as site:
        await ask(site, path, think=think, format="json")
        (request,) = site.house.launcher.started[0].generated

    assert request.grammar == Grammar(GrammarKind.JSON, opening=opening, closing=closing)


async def test_thoughts_that_nobody_wants_are_not_in_what_a_format_asks_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    script = Script(says='hm</think>{"a":1}', token_bytes=2)
    async with a_site(tmp_path, script, chat_template=OPENING) as site:
        answer = await ask(site, CHAT, think=False, format="json")

    assert said(answer) == ("", '{"a":1}')


# Calls


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_is_told_with_its_number_and_its_arguments(
    stream: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, CALL, chat_template=TOOLS) as site:
        answer = await ask(site, CHAT, tools=[ADD], stream=stream)

    (line,) = (line for line in answer.lines if "tool_calls" in line["message"])
    (call,) = line["message"]["tool_calls"]
    assert call["function"] == {"index": 0, "name": "add", "arguments": {"a": 2}}
    assert call["id"].startswith("call_")
    assert said(answer)[1].strip() == "Wait."
    assert answer.lines[-1]["done_reason"] == "stop"
    assert line["done"] is not stream


@pytest.mark.parametrize("path", [GENERATE, CHAT])
async def test_without_tools_nothing_is_a_call(
    path: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, CALL, chat_template=TOOLS) as site:
        answer = await ask(site, path)

    assert said(answer)[1] == CALL.says


async def test_a_call_and_its_result_come_back_in_the_history(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    messages = [
        {"role": "USER", "content": "2+2?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2}}}],
        },
        {"role": "tool", "tool_name": "add", "content": "4"},
    ]
    async with a_site(tmp_path, chat_template=TOOLS) as site:
        answer = await ask(site, CHAT, messages=messages, tools=[ADD], _debug_render_only=True)

    rendered = answer.json["_debug_info"]["rendered_template"]
    assert rendered.endswith(
        'user: 2+2? assistant: <tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call> '
        "tool: 4 assistant: "
    )


# What does not fit


@pytest.mark.parametrize("stream", [True, False])
async def test_what_was_left_out_is_told_with_the_last_object(
    stream: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    old, new = "word " * 60, "new " * 60
    messages = [{"role": "user", "content": text} for text in (old, old, new)]
    async with a_site(tmp_path) as site:
        answer = await ask(site, CHAT, messages=messages, stream=stream)
        whole = await ask(site, CHAT, messages=messages[2:], stream=stream)

    assert answer.lines[-1]["prompt_truncated"] == {
        "messages": 2,
        "tokens_before": 183,
        "tokens_after": 61,
    }
    assert "prompt_truncated" not in whole.lines[-1]


async def test_a_prompt_that_is_too_long_by_itself_is_cut_in_the_middle_and_told(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        cut = await ask(site, GENERATE, prompt="word " * 300, raw=True, stream=False)
        refused = await ask(site, GENERATE, prompt="word " * 300, shift=False)
        kept = await ask(site, GENERATE, prompt="word " * 300, truncate=False)

    assert cut.json["prompt_truncated"]["cut"] is True
    assert (refused.status, kept.status) == (400, 400)
    assert "the prompt has 301 tokens, but the context holds 128" in refused.json["error"]


# Log-probabilities and filling in


@pytest.mark.parametrize("path", [GENERATE, CHAT])
async def test_how_many_likely_tokens_are_wanted_goes_to_the_runner(
    path: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        await ask(site, path, logprobs=True, top_logprobs=3)
        await ask(site, path, top_logprobs=3)
        asked = [request.n_logprobs for request in site.house.launcher.started[0].generated]

    assert asked == [3, None]


async def test_a_model_that_cannot_fill_in_says_so_before_it_is_loaded(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await ask(site, GENERATE, suffix="x")
        started = site.house.launcher.started

    assert answer.status == 400
    assert answer.json["error"] == (
        "registry.ollama.ai/library/tiny:latest does not support insert"
    )
    assert started == []


async def test_a_context_is_put_in_front_and_comes_back_longer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await ask(site, GENERATE, context=[1, 2, 3])
        (request,) = site.house.launcher.started[0].generated

    assert request.context == (1, 2, 3)
    assert request.echo_tokens
    assert answer.lines[-1]["context"] == [0, 1]

"""/v1/completions on fakes: what is asked of runners, and what goes over the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from tests.fakes.launcher import Script
from tests.wire.openaiwords import complete, events_of
from tests.wire.site import NOW, a_site
from tests.wire.templates import THINKING

HELLO = Script(says="hello you")
INFILL = {
    "tokenizer.ggml.fim_pre_token_id": 0,
    "tokenizer.ggml.fim_suf_token_id": 1,
    "tokenizer.ggml.fim_mid_token_id": 2,
}


async def test_a_completion_is_one_object(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await complete(site)
        (request,) = site.house.launcher.started[0].generated

    whole = answer.json
    assert whole.pop("id").startswith("cmpl-")
    assert whole.pop("usage")["total_tokens"] == 4
    assert whole == {
        "object": "text_completion",
        "created": int(NOW.timestamp()),
        "model": "tiny",
        "system_fingerprint": "fp_ollama",
        "choices": [{"text": "hello you ", "index": 0, "logprobs": None, "finish_reason": "stop"}],
    }
    assert request.prompt == "user: one two "


async def test_a_stream_has_its_reason_on_the_last_event(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await complete(site, stream=True, stream_options={"include_usage": True})

    *events, last = events_of(answer)
    told = [(e["choices"][0]["text"], e["choices"][0]["finish_reason"]) for e in events]
    assert told == [("hello ", None), ("you ", None), ("", "stop")]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 2)


async def test_raw_prompts_and_tokens_go_to_the_model_as_they_are(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        await complete(site, raw=True)
        await complete(site, prompt=[5, 6, 7])
        raw, tokens = site.house.launcher.started[0].generated

    assert (raw.prompt, raw.context) == ("one two", ())
    assert (tokens.prompt, tokens.context, tokens.add_special) == ("", (5, 6, 7), False)


async def test_each_of_several_prompts_has_its_answers_in_order(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await complete(site, prompt=["one", "two three"], n=2, raw=True)
        streamed = await complete(site, prompt=["one", "two three"], raw=True, stream=True)

    texts = [(choice["index"], choice["text"]) for choice in answer.json["choices"]]
    assert texts == [(0, "one "), (1, "one "), (2, "two three "), (3, "two three ")]
    usage = answer.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3, 6)
    assert {event["choices"][0]["index"] for event in events_of(streamed)} == {0, 1}


async def test_the_best_are_told_and_all_are_paid_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await complete(site, n=1, best_of=3)
        asked = site.house.launcher.started[0].generated

    assert [choice["index"] for choice in answer.json["choices"]] == [0]
    assert answer.json["choices"][0]["logprobs"] is None
    assert answer.json["usage"]["completion_tokens"] == 6
    assert [request.n_logprobs for request in asked] == [0, 0, 0]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_echo_has_the_prompt_before_the_answer(
    stream: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO) as site:
        answer = await complete(site, echo=True, stream=stream)

    objects = events_of(answer) if stream else [answer.json]
    assert "".join(one["choices"][0]["text"] for one in objects) == "one twohello you "


@pytest.mark.parametrize("stream", [True, False])
async def test_what_was_thought_is_left_out(
    stream: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    thought = Script(says="<think>two and two</think>It is four.", token_bytes=3)
    async with a_site(tmp_path, thought, chat_template=THINKING) as site:
        answer = await complete(site, stream=stream)

    objects = events_of(answer) if stream else [answer.json]
    assert "".join(one["choices"][0]["text"] for one in objects) == "It is four."


async def test_an_empty_prompt_loads(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        answer = await complete(site, prompt="")
        (runner,) = site.house.launcher.started

    assert answer.json["choices"][0]["finish_reason"] == "load"
    assert runner.generated == []


async def test_a_suffix_is_filled_in_or_the_model_says_that_it_cannot(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await complete(site, suffix="x")
        started = site.house.launcher.started

    assert answer.status == 400
    assert answer.json["error"]["message"].endswith("does not support insert")
    assert started == []


async def test_what_is_filled_in_stands_between_the_model_s_own_marks(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, HELLO, metadata=INFILL, tokens=("<P>", "<S>", "<M>", "a")) as site:
        await complete(site, suffix="x")
        (request,) = site.house.launcher.started[0].generated

    assert request.prompt == "<P>one two<S>x<M>"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": [1, -1]}, "prompt"),
        ({"prompt": [1, True]}, "prompt"),
        ({"prompt": [[1], [2**31]]}, "prompt[1]"),
        ({"prompt": ["a"] * 17}, "n"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"best_of": 17}, "n"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": "x"}, "logprobs"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"echo": True, "prompt": [1]}, "echo"),
        ({"suffix": "x", "prompt": ["a", "b"]}, "suffix"),
    ],
)
async def test_a_wrong_field_is_named(
    fields: dict[str, Any], param: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await complete(site, **fields)

    assert answer.status == 400
    assert answer.json["error"]["param"] == param, answer.json

"""Ollama's shapes: keys in their order, what is left out, how lines end, which status."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from ollamad.config import SchedulingConfig
from tests.fakes.launcher import Script
from tests.wire.site import a_site

NDJSON = "application/x-ndjson"
JSON = "application/json; charset=utf-8"
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hi <b>"}]}
CREATED_AT = '"created_at":"2026-08-21T10:00:00.123Z"'


async def test_a_streamed_chat_is_lines_of_json_and_ends_with_its_measures(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/chat", HELLO)

    assert answer.status == 200
    assert answer.headers["content-type"] == NDJSON
    first, *_, last = answer.body.split(b"\n")[:-1]
    assert first.decode() == (
        '{"model":"tiny",' + CREATED_AT + ',"message":{"role":"assistant","content":"user: "},'
        '"done":false}'
    )
    assert last.decode().startswith(
        '{"model":"tiny",' + CREATED_AT + ',"message":{"role":"assistant","content":""},'
        '"done":true,"done_reason":"stop","total_duration":'
    )
    assert answer.body.endswith(b"}\n")
    assert b"\\u003cb\\u003e" in answer.body


async def test_an_unstreamed_chat_is_one_object(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/chat", {**HELLO, "stream": False})

    assert answer.headers["content-type"] == JSON
    assert answer.json["message"] == {"role": "assistant", "content": "user: hi <b> "}
    assert not answer.body.endswith(b"\n")


async def test_generate_has_a_response_instead_of_a_message(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/generate", {"model": "tiny", "prompt": "hi"})

    assert [line["response"] for line in answer.lines] == ["user: ", "hi ", ""]
    assert list(answer.lines[0]) == ["model", "created_at", "response", "done"]


async def test_raw_prompts_are_sent_as_they_are(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask(
            "POST", "/api/generate", {"model": "tiny", "prompt": "just this", "raw": True}
        )

    assert [line["response"] for line in answer.lines] == ["just ", "this ", ""]
    assert "context" not in answer.lines[-1]


@pytest.mark.parametrize(
    ("path", "body", "part"),
    [
        ("/api/generate", {"model": "tiny"}, '"response":""'),
        ("/api/chat", {"model": "tiny"}, '"message":{"role":"assistant","content":""}'),
    ],
)
async def test_an_empty_prompt_loads_and_with_keep_alive_zero_unloads(
    path: str, body: dict[str, object], part: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        loaded = await site.ask("POST", path, body)
        running = await site.ask("GET", "/api/ps")
        unloaded = await site.ask("POST", path, {**body, "keep_alive": 0})
        await site.house.launcher.started[0].exited.wait()

    head = '{"model":"tiny",' + CREATED_AT + "," + part + ',"done":true,"done_reason":'
    assert loaded.body.decode() == head + '"load"}'
    assert unloaded.body.decode() == head + '"unload"}'
    assert loaded.headers["content-type"] == JSON
    assert [model["name"] for model in running.json["models"]] == ["tiny:latest"]


async def test_tags_and_ps_describe_models(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        await site.ask("POST", "/api/generate", {"model": "tiny"})
        # In this order: virtual time jumps while a thread reads the store for the tags.
        (running,) = (await site.ask("GET", "/api/ps")).json["models"]
        (listed,) = (await site.ask("GET", "/api/tags")).json["models"]

    assert list(listed) == [
        "name", "model", "modified_at", "size", "digest", "details", "capabilities",
    ]  # fmt: skip
    assert listed["details"]["context_length"] == 128
    assert list(running) == [
        "name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length",
    ]  # fmt: skip
    assert running["digest"] == listed["digest"]
    assert running["context_length"] == 128


@pytest.mark.parametrize("keep_alive", [-1, 1e300, "9999999h"])
async def test_ps_shows_models_that_stay_longer_than_a_calendar_can_tell(
    keep_alive: object, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        await site.ask("POST", "/api/generate", {"model": "tiny", "keep_alive": keep_alive})
        shown = await site.ask("GET", "/api/ps")

    assert shown.status == 200
    assert shown.json["models"][0]["expires_at"] > "2300"


async def test_show_keeps_long_arrays_for_those_who_ask(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        short = (await site.ask("POST", "/api/show", {"model": "tiny"})).json
        long = (await site.ask("POST", "/api/show", {"name": "tiny", "verbose": True})).json

    assert short["model_info"]["tokenizer.ggml.tokens"] is None
    assert long["model_info"]["tokenizer.ggml.tokens"][1] == "<s>"
    assert "tokenizer.chat_template" not in short["model_info"]
    assert short["template"].startswith("{% for m in messages %}")
    assert short["tensors"][0] == {"name": "token_embd.weight", "type": "F16", "shape": [32, 5]}


async def test_an_error_before_the_first_word_has_its_own_status(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, Script(load_fails="broken tensor")) as site:
        answer = await site.ask("POST", "/api/chat", HELLO)

    assert answer.status == 500
    assert answer.headers["content-type"] == JSON
    assert "broken tensor" in answer.json["error"]


async def test_an_error_after_the_first_word_is_the_last_line(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, Script(dies_after_words=1)) as site:
        answer = await site.ask("POST", "/api/chat", HELLO)

    assert answer.status == 200
    assert list(answer.lines[-1]) == ["error"]
    assert "SIGKILL" in answer.lines[-1]["error"]


async def test_a_full_queue_is_503_with_ollamas_words_and_a_time_to_come_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path, scheduling=SchedulingConfig(queue_length_max=0)) as site:
        answer = await site.ask("POST", "/api/chat", HELLO)

    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json == {
        "error": "server busy, please try again.  maximum pending requests exceeded"
    }


async def test_after_an_answer_nothing_holds_the_model(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        await site.ask("POST", "/api/chat", HELLO)
        await wait_all_tasks_blocked()
        (view,) = site.house.supervisor.residents()
        assert view.n_leases == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"format": "xml"}, 'invalid format: "xml"; expected "json" or a valid JSON Schema object'),
        ({"tools": [{"type": "function"}]}, "library/tiny:latest does not support tools"),
        ({"think": "hard"}, "invalid think value"),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
        ({"keep_alive": "5"}, 'time: missing unit in duration "5"'),
        ({"options": {"stop": "x"}}, 'option "stop" must be of type array'),
    ],
)
async def test_what_cannot_be_done_is_said(
    body: dict[str, object], message: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/chat", {**HELLO, **body})

    assert answer.status == 400
    assert message in answer.json["error"]


async def test_routes_forgive_a_slash_too_many(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        get = await site.ask("GET", "/api/tags/")
        post = await site.ask("POST", "/api/chat/", HELLO)

    assert (get.status, get.headers["location"]) == (301, "/api/tags")
    assert (post.status, post.headers["location"]) == (307, "/api/chat")


async def test_rendering_can_be_looked_at_without_generating(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/chat", {**HELLO, "_debug_render_only": True})

    assert answer.json["_debug_info"] == {"rendered_template": "user: hi <b> "}

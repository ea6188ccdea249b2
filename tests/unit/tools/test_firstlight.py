"""The first answer: read as a client reads it, and every way it can fail has its sentence."""

from __future__ import annotations

import json
import socket

import httpx
import pytest

from tools import firstlight
from tools.address import Address
from tools.firstlight import Answer, FirstLightError

DONE = {"done": True, "eval_count": 20, "eval_duration": 2 * 10**9, "load_duration": 5 * 10**8}


def a_client(*lines: str, status: int = 200, tags: object = None) -> httpx.Client:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/tags":
            return httpx.Response(200, json=tags)
        return httpx.Response(status, text="".join(f"{line}\n" for line in lines))

    return httpx.Client(transport=httpx.MockTransport(answer))


def a_part(text: str) -> str:
    return json.dumps({"message": {"role": "assistant", "content": text}, "done": False})


def test_an_answer_is_printed_as_it_comes_and_summed_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with a_client(a_part("Blue"), "", a_part(" light\x1b[2J."), json.dumps(DONE)) as client:
        answer = firstlight.ask("http://test", "m", client)

    assert capsys.readouterr().out == "Blue light[2J.\n"
    assert answer.summary == "(20 tokens, 10.0 tokens/s, loaded in 0.5 s)"


def test_an_answer_without_timings_has_no_speed() -> None:
    assert Answer("x", 3, 0, 0).summary == "(3 tokens, loaded in 0.0 s)"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([a_part("x"), '{"error": "out of memory"}'], "out of memory"),
        ([a_part("x")], "broke off before its end"),
        (["<html>"], "something else than JSON"),
        (["[1]"], "broke off before its end"),
    ],
)
def test_a_stream_that_fails_says_how(lines: list[str], words: str) -> None:
    with a_client(*lines) as client, pytest.raises(FirstLightError, match=words):
        firstlight.ask("http://test", "m", client)


def test_an_empty_answer_is_a_failure() -> None:
    tags = {"models": [{"name": "m", "modified_at": "2026"}]}
    with (
        a_client(a_part(" \n"), json.dumps(DONE), tags=tags) as client,
        pytest.raises(FirstLightError, match="m gave an empty answer"),
    ):
        firstlight.first_question("http://test", client)


def test_the_small_model_is_asked_before_newer_ones() -> None:
    newest = {"name": "b", "modified_at": "2026-02-01T00:00:00Z"}
    older = {"name": "a", "modified_at": "2026-01-01T00:00:00Z"}
    small = {"name": firstlight.MODEL, "modified_at": "2025-01-01T00:00:00Z"}

    assert firstlight.choose_model({"models": [older, newest, small]}) == firstlight.MODEL
    assert firstlight.choose_model({"models": [older, newest]}) == "b"


@pytest.mark.parametrize("tags", [{"models": []}, {"models": None}, [], {"models": ["odd"]}])
def test_an_empty_store_says_how_to_fill_it(tags: object) -> None:
    with pytest.raises(FirstLightError, match="ollamactl pull"):
        firstlight.choose_model(tags)


def test_a_taken_port_is_refused_with_another_to_choose() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(FirstLightError, match=f"OLLAMA_HOST=127.0.0.1:{port + 1} make run"):
            firstlight.check_free(Address("127.0.0.1", port))


def test_the_next_steps_name_the_host_only_when_it_is_unusual() -> None:
    usual = firstlight.next_steps(Address("127.0.0.1", 11434), "m")
    unusual = firstlight.next_steps(Address("127.0.0.1", 5), "m")

    assert "\n  .venv/bin/ollamactl run m\n" in usual
    assert "\n  OLLAMA_HOST=http://127.0.0.1:5 .venv/bin/ollamactl run m\n" in unusual

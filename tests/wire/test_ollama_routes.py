"""Which routes there are beside the models' own, and what is answered where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from ollamad import __version__
from ollamad.names import ModelName
from ollamad.registry.create import CreateSpec
from tests.builders import created
from tests.wire.site import a_site

OFF = "ollama cloud is disabled:"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_says_that_somebody_is_there(
    method: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask(method, "/")

    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert answer.headers["content-length"] == "17"
    if method == "GET":  # The server drops the body of an answer to HEAD.
        assert answer.body == b"Ollama is running"


@pytest.mark.parametrize("path", ["/api/version", "/api/tags", "/api/ps"])
async def test_what_can_be_got_has_a_head(
    path: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("HEAD", path)

    assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/api/version", 200, {"version": "0.33.0", "ollamad": __version__}),
        ("GET", "/api/status", 200, {"cloud": {"disabled": True, "source": "config"}}),
        ("POST", "/api/me", 401, {"error": "unauthorized"}),
        ("POST", "/api/signout", 401, {"error": "you are not currently signed in"}),
        ("DELETE", "/api/user/keys/abc", 401, {"error": "you are not currently signed in"}),
        ("GET", "/api/experimental/model-recommendations", 200, {"recommendations": []}),
    ],
)
async def test_nobody_is_signed_in_and_there_is_no_cloud(
    method: str,
    path: str,
    status: int,
    body: object,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask(method, path)

    assert (answer.status, answer.json) == (status, body)


@pytest.mark.parametrize("service", ["search", "fetch"])
async def test_nothing_is_asked_of_the_web(
    service: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = f"/api/experimental/web_{service}"
    async with a_site(tmp_path) as site:
        empty = await site.ask("POST", path)
        asked = await site.ask("POST", path, {"query": "llamas"})

    assert (empty.status, empty.json) == (400, {"error": "missing request body"})
    assert (asked.status, asked.json) == (403, {"error": f"{OFF} web {service} is unavailable"})


# Where a model is, by its name


@pytest.mark.parametrize(
    ("path", "name", "status", "error"),
    [
        ("generate", "kimi:cloud", 403, f"{OFF} remote model is unavailable"),
        ("chat", "gpt-oss:20b-cloud", 403, f"{OFF} remote model is unavailable"),
        ("chat", "gpt-oss:20b:CLOUD", 403, f"{OFF} remote model is unavailable"),
        ("embed", "kimi:cloud", 403, f"{OFF} remote model is unavailable"),
        ("show", "kimi:cloud", 403, f"{OFF} remote model details are unavailable"),
        ("chat", "a:cloud:local", 400, 'use either :local or :cloud, not both: "a:cloud:local"'),
        ("chat", "a:local", 404, "model 'a:local' not found"),
        ("chat", "a b", 400, "invalid model name"),
        ("show", "missing", 404, "model 'missing:latest' not found"),
        ("show", "", 400, "model is required"),
        ("show", "a b", 400, "invalid model name"),
    ],
)
async def test_a_name_may_say_where_its_model_is(
    path: str,
    name: str,
    status: int,
    error: str,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", f"/api/{path}", {"model": name})

    assert (answer.status, answer.json) == (status, {"error": error})


@pytest.mark.parametrize("name", ["tiny:local", "tiny:latest:local", "  tiny ", "TINY"])
async def test_a_stored_model_is_found_under_what_it_may_be_called(
    name: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        loaded = await site.ask("POST", "/api/generate", {"model": name})
        shown = await site.ask("POST", "/api/show", {"model": name})

    assert (loaded.status, loaded.json["model"]) == (200, name)
    assert shown.status == 200


async def test_a_stored_model_wins_over_a_suffix(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        created(site.store, CreateSpec(name=ModelName.parse("mine:cloud"), from_="tiny"))
        answer = await site.ask("POST", "/api/generate", {"model": "mine:cloud"})

    assert answer.status == 200


# Routes that are not there


async def test_an_unknown_path_is_a_plain_404_with_a_slash_or_without(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answers = [await site.ask("GET", path) for path in ("/nope", "/nope/", "//evil.example/")]

    for answer in answers:
        assert (answer.status, answer.body) == (404, b"404 page not found")
        assert answer.headers["content-type"] == "text/plain"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/chat", "OPTIONS, POST"),
        ("POST", "/api/tags", "GET, HEAD, OPTIONS"),
        ("GET", "/api/blobs/sha256:0", "HEAD, POST"),
    ],
)
async def test_another_method_is_a_plain_405(
    method: str, path: str, allowed: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask(method, path)

    assert (answer.status, answer.body) == (405, b"405 method not allowed")
    assert answer.headers["allow"] == allowed


async def test_a_redirect_keeps_what_was_asked(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/me/")

    assert (answer.status, answer.headers["location"]) == (307, "/api/me")


async def test_options_are_answered_at_once_for_a_good_host(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("OPTIONS", "/api/chat")

    assert (answer.status, answer.body) == (204, b"")


async def test_answers_are_never_compressed(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("GET", "/api/tags", **{"accept-encoding": "gzip, br, zstd"})

    assert "content-encoding" not in answer.headers

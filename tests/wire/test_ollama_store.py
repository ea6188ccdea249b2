"""Copy, delete, blobs and create over the wire: statuses, and bodies that are empty or are not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from trio.testing import MockClock

from ollamad.config import HttpConfig
from tests.builders import a_gguf
from tests.wire.site import a_site

ABSENT = "sha256:" + "0" * 64


async def test_a_copy_is_another_name_and_has_no_body(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        copied = await site.ask("POST", "/api/copy", {"source": "tiny", "destination": "me/other"})
        again = await site.ask("POST", "/api/copy", {"source": "tiny", "destination": "tiny"})
        listed = (await site.ask("GET", "/api/tags")).json["models"]

    assert (copied.status, copied.body, again.status) == (200, b"", 200)
    assert {model["name"] for model in listed} == {"tiny:latest", "me/other:latest"}


async def test_deleting_answers_with_nothing_and_leaves_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        deleted = await site.ask("DELETE", "/api/delete", {"name": "tiny"})
        listed = await site.ask("GET", "/api/tags")

    assert (deleted.status, deleted.body) == (200, b"")
    assert listed.body == b'{"models":[]}'


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "copy", {"source": "a b", "destination": "x"}, 400, 'source "a b" is invalid'),
        ("POST", "copy", {"source": "tiny"}, 400, 'destination "" is invalid'),
        ("POST", "copy", {"source": "x", "destination": "y"}, 404, 'model "x" not found'),
        ("DELETE", "delete", {}, 400, "model is required"),
        ("DELETE", "delete", {"model": "a b"}, 400, 'name "a b" is invalid'),
        ("DELETE", "delete", {"model": "x"}, 404, "model 'x' not found"),
        ("DELETE", "delete", None, 400, "missing request body"),
        ("POST", "create", {"model": ""}, 400, "invalid model name"),
        ("POST", "create", {"model": "x"}, 400, "neither 'from' or 'files' was specified"),
        (
            "POST",
            "create",
            {"model": "x", "draft_quantize": "q4_0"},
            400,
            "--draft-quantize requires a DRAFT model",
        ),
        (
            "POST",
            "create",
            {"model": "x", "files": {"/a.gguf": ABSENT}},
            400,
            "file path must be relative",
        ),
        (
            "POST",
            "create",
            {"model": "x", "files": {"a.gguf": "sha256:0"}},
            400,
            "invalid digest format",
        ),
    ],
)
async def test_errors_have_ollamas_words_and_statuses(
    method: str,
    path: str,
    body: object,
    status: int,
    message: str,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask(method, f"/api/{path}", body)

    assert (answer.status, answer.json) == (status, {"error": message})


async def test_a_blob_is_stored_once_and_then_known(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    data = a_gguf(tmp_path / "new.gguf", n_layer=1).read_bytes()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    async with a_site(tmp_path) as site:
        answers = [
            await site.ask("HEAD", f"/api/blobs/{digest}"),
            await site.ask("POST", f"/api/blobs/{digest}", data),
            await site.ask("HEAD", f"/api/blobs/{digest}"),
            await site.ask("POST", f"/api/blobs/{digest}", data),
        ]
        made = await site.ask("POST", "/api/create", {"model": "new", "files": {"n.gguf": digest}})

    assert [answer.status for answer in answers] == [404, 201, 200, 200]
    assert [answer.body for answer in answers] == [b""] * 4
    assert [line["status"] for line in made.lines][-2:] == ["writing manifest", "success"]


async def test_a_blob_of_another_digest_is_refused_with_both(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        other = await site.ask("POST", f"/api/blobs/{ABSENT}", b"data")
        malformed = await site.ask("POST", "/api/blobs/sha256:5", b"data")

    assert other.status == 400
    assert other.json["error"].startswith(f'digest mismatch, expected "{ABSENT}", got "sha256:')
    assert (malformed.status, malformed.json) == (400, {"error": "invalid digest format"})


async def test_without_a_stream_create_tells_only_its_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        body = {"model": "mine", "from": "tiny", "system": "Be brief.", "stream": False}
        answer = await site.ask("POST", "/api/create", body)

    assert (answer.status, answer.json) == (200, {"status": "success"})


@pytest.mark.parametrize("keep_alive", [0, "0", 1.5, -1, "10m", "1h30m", None])
async def test_a_keep_alive_is_seconds_or_a_duration(
    keep_alive: object, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        body = {"model": "tiny", "prompt": "hi", "keep_alive": keep_alive}
        answer = await site.ask("POST", "/api/generate", body)

    assert answer.status == 200


async def test_limits_of_the_configuration_hold_for_every_route(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    http = HttpConfig(messages_max=1, inputs_max=1)
    messages = [{"role": "user", "content": "hi"}] * 2
    async with a_site(tmp_path, http=http) as site:
        chat = await site.ask("POST", "/api/chat", {"model": "tiny", "messages": messages})
        embed = await site.ask("POST", "/api/embed", {"model": "tiny", "input": ["a", "b"]})

    assert chat.json == {"error": "messages: 2 are too many, 1 are taken (http.messages_max)"}
    assert embed.json == {"error": "input: 2 are too many, 1 are taken (http.inputs_max)"}
    assert (chat.status, embed.status) == (400, 400)

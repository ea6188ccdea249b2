"""The document about the routes, and the routes themselves."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
from trio.testing import MockClock

from ollamad.http.ollama import blobs
from ollamad.http.openapi.document import document
from ollamad.http.openapi.table import APIS
from tests.wire.apps import noted_apps, routes_of
from tests.wire.site import a_site

BESIDE_QUART = {("HEAD", blobs.PREFIX + "{digest}"), ("POST", blobs.PREFIX + "{digest}")}
"""Routes of wrappers around the application."""
HI = [{"role": "user", "content": "hi"}]


async def test_the_document_has_every_route_and_no_other(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A route without a row is one that nobody can find."""
    made = noted_apps(monkeypatch)
    async with a_site(tmp_path):
        real = {
            (method, re.sub(r"<(?:[^:>]+:)?([^>]+)>", r"{\1}", path))
            for method, path in routes_of(made[0])
        }

    told = {(row.method, row.path) for api in APIS for row in api.rows}
    assert told - BESIDE_QUART == real
    assert told >= BESIDE_QUART


async def test_the_document_is_served_and_is_that_of_the_table(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("GET", "/openapi.json")

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json == document(APIS)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/version", None, 200),
        ("GET", "/api/tags", None, 200),
        ("GET", "/api/ps", None, 200),
        ("POST", "/api/show", {"model": "tiny"}, 200),
        ("POST", "/api/show", {"model": "no"}, 404),
        ("POST", "/api/chat", {"model": "tiny", "stream": False}, 200),
        ("POST", "/api/generate", {"model": "tiny", "prompt": "hi", "stream": False}, 200),
        ("POST", "/api/generate", {"model": 1}, 400),
        ("POST", "/api/embed", {"model": "tiny", "input": ["a b", "c"]}, 200),
        ("POST", "/api/embeddings", {"model": "tiny", "prompt": "a b"}, 200),
        ("POST", "/v1/chat/completions", {"model": "tiny", "messages": HI, "n": 2}, 200),
        ("POST", "/v1/chat/completions", {"model": "tiny"}, 400),
        ("POST", "/v1/completions", {"model": "tiny", "prompt": "hi", "logprobs": 1}, 200),
        ("POST", "/v1/embeddings", {"model": "tiny", "input": ["a b", "c"]}, 200),
        ("GET", "/v1/models", None, 200),
        ("POST", "/v1/rerank", {"model": "no", "query": "a", "documents": ["b"]}, 404),
    ],
)
async def test_answers_are_what_the_document_says(
    method: str,
    path: str,
    body: object,
    status: int,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path) as site:
        await site.ask("POST", "/api/generate", {"model": "tiny"})
        answer = await site.ask(method, path, body)

    assert answer.status == status
    check_answer(method, path, answer.status, answer.json)


def check_answer(method: str, path: str, status: int, answer: object) -> None:
    """Hold an answer in JSON to the document."""
    made = document(APIS)
    told = made["paths"][path][method.lower()]["responses"][str(status)]
    if "$ref" in told:
        told = made["components"]["responses"][told["$ref"].rpartition("/")[2]]
    schema = told["content"]["application/json"]["schema"]
    jsonschema.validate(answer, {**schema, "components": made["components"]})

"""Formats over the wire: what is wrong with one is said before any model is loaded for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from tests.wire.site import a_site

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
PROMPT = {"model": "tiny", "prompt": "hi"}


@pytest.mark.parametrize(
    ("path", "body"), [("/api/chat", HELLO), ("/api/generate", PROMPT)], ids=["chat", "generate"]
)
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}},
            'the JSON Schema cannot be kept to: "uniqueItems" at "/properties/tags": ',
        ),
        ({"$ref": "#"}, '"$ref" at the root: a value of it would never end'),
        ({"choice": []}, "a choice must be a list of texts with at least one in it"),
        ({"regex": 5}, "the regex must be a text that is not empty"),
    ],
    ids=["schema", "endless", "choice", "regex"],
)
async def test_a_format_that_cannot_be_kept_to_is_refused_before_a_model_is_loaded(
    path: str,
    body: dict[str, Any],
    asked: Any,
    message: str,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", path, {**body, "format": asked})

        assert answer.status == 400
        assert message in answer.json["error"]
        assert site.house.supervisor.residents() == ()


@pytest.mark.parametrize(
    "asked",
    ["json", {}, {"type": "object"}, {"regex": "[a-z]+"}, {"gbnf": 'root ::= "a"'}, "", None],
)
async def test_a_format_that_can_be_kept_to_is_answered(
    asked: Any, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_site(tmp_path) as site:
        answer = await site.ask("POST", "/api/chat", {**HELLO, "format": asked})

    assert answer.status == 200

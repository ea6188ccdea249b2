"""All APIs, in the order of the document."""

from __future__ import annotations

from typing import Final

from ollamad.http.errors import ErrorBody
from ollamad.http.openapi.anthropic import ANTHROPIC
from ollamad.http.openapi.ollama import OLLAMA
from ollamad.http.openapi.openai import OPENAI
from ollamad.http.openapi.rows import Api, Reply, Row

DAEMON: Final = Api(
    name="daemon",
    words="What no other API has.",
    error=ErrorBody,
    rows=(
        Row(
            method="GET",
            path="/openapi.json",
            name="openapi",
            summary="Return this document.",
            replies=(Reply(),),
        ),
    ),
)

APIS: Final[tuple[Api, ...]] = (OLLAMA, OPENAI, ANTHROPIC, DAEMON)

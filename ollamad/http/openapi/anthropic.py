"""The rows of Anthropic's API."""

from __future__ import annotations

from typing import Final

from ollamad.http.anthropic import wire
from ollamad.http.anthropic.errors import ErrorBody
from ollamad.http.openapi.rows import COMPUTES, EVENTS, Api, Reply, Row, Schema

_RESULT: Final[Schema] = {
    "description": "A tool's result: a text, or blocks.",
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "object"}},
        {"type": "null"},
    ],
}
_KEEP_ALIVE: Final[Schema] = {
    "description": "As in Ollama's own API.",
    "type": ["number", "string", "null"],
}
_SCHEMA: Final[Schema] = {"description": "A JSON Schema.", "type": ["object", "boolean", "null"]}

ANTHROPIC: Final = Api(
    name="anthropic",
    words="Anthropic's API.",
    error=ErrorBody,
    fields={
        (wire.Block, "content"): _RESULT,
        (wire.OutputFormat, "schema"): _SCHEMA,
        (wire.MessagesRequest, "keep_alive"): _KEEP_ALIVE,
    },
    rows=(
        Row(
            method="POST",
            path="/v1/messages",
            name="createMessage",
            summary="Answer a conversation.",
            request=wire.MessagesRequest,
            replies=(
                Reply((wire.MessageAnswer,), words="A message, or its events with `stream`."),
                Reply(
                    (
                        wire.MessageStart,
                        wire.Ping,
                        wire.BlockStart,
                        wire.BlockDelta,
                        wire.BlockStop,
                        wire.MessageDelta,
                        wire.MessageStop,
                        ErrorBody,
                    ),
                    EVENTS,
                ),
            ),
            errors=COMPUTES,
        ),
        Row(
            method="POST",
            path="/v1/messages/count_tokens",
            name="countTokens",
            summary="Count the tokens of a conversation, by its model's own tokenizer.",
            request=wire.MessagesRequest,
            replies=(Reply((wire.TokenCount,)),),
            errors=COMPUTES,
        ),
    ),
)

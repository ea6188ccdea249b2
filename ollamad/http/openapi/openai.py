"""The rows of OpenAI's API."""

from __future__ import annotations

from typing import Any, Final

from ollamad.http.openai import responseswire
from ollamad.http.openai.errors import ErrorBody
from ollamad.http.openapi.rows import COMPUTES, EVENTS, Api, Reply, Row, Schema

_INPUT: Final[Schema] = {
    "description": "A text, or the items of a conversation: messages, calls of functions and their "
    "outputs, and thinking.",
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "object"}},
    ],
}
_TOOL_CHOICE: Final[Schema] = {
    "description": "Which tools the model may or must call.",
    "anyOf": [
        {"type": "string", "enum": ["auto", "none", "required"]},
        {
            "type": "object",
            "properties": {"type": {"const": "function"}, "name": {"type": "string"}},
            "required": ["type", "name"],
        },
        {
            "type": "object",
            "properties": {
                "type": {"const": "allowed_tools"},
                "mode": {"enum": ["auto", "required"]},
                "tools": {"type": "array", "items": {"type": "object"}},
            },
            "required": ["type", "mode", "tools"],
        },
    ],
}


def _never(what: str) -> dict[str, Any]:
    return {"description": f"{what} are not kept: anything but null is refused.", "type": "null"}


OPENAI: Final = Api(
    name="openai",
    words="OpenAI's API.",
    error=ErrorBody,
    parameters={"response_id": "A response's id. None is kept."},
    fields={
        (responseswire.ResponsesRequest, "input"): _INPUT,
        (responseswire.ResponsesRequest, "tool_choice"): _TOOL_CHOICE,
        (responseswire.ResponsesRequest, "conversation"): _never("Conversations"),
        (responseswire.ResponsesRequest, "prompt"): _never("Prompts"),
        (responseswire.ResponseObject, "tool_choice"): _TOOL_CHOICE,
    },
    rows=(
        Row(
            method="POST",
            path="/v1/responses",
            name="createResponse",
            summary="Answer a conversation.",
            request=responseswire.ResponsesRequest,
            replies=(
                Reply((responseswire.ResponseObject,), words="An object, or events with `stream`."),
                Reply(responseswire.EVENTS, EVENTS),
            ),
            errors=COMPUTES,
        ),
        Row(
            method="GET",
            path="/v1/responses/{response_id}",
            name="getResponse",
            summary="Return an earlier response: none is kept.",
            errors=(404,),
        ),
        Row(
            method="DELETE",
            path="/v1/responses/{response_id}",
            name="deleteResponse",
            summary="Delete an earlier response: none is kept.",
            errors=(404,),
        ),
    ),
)

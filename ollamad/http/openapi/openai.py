"""The rows of OpenAI's API."""

from __future__ import annotations

from typing import Any, Final

from ollamad.http.openai import responseswire, wire
from ollamad.http.openai.errors import ErrorBody
from ollamad.http.openapi.rows import COMPUTES, EVENTS, READS, Api, Reply, Row, Schema

_DONE: Final = "[DONE]"

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


_STOP: Final[Schema] = {
    "description": "Texts that end an answer and are not part of it.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}
_CONTENT: Final[Schema] = {
    "description": "A text, or parts of one.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}],
}
_PROMPT: Final[Schema] = {
    "description": "A text, its tokens, or several of either.",
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer", "minimum": 0}},
        {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        },
    ],
}
_TEXTS: Final[Schema] = {
    "description": "A text, or several.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}
_RESPONSE_FORMAT: Final[Schema] = {
    "description": "What the text must look like.",
    "type": "object",
    "properties": {
        "type": {"enum": ["text", "json_object", "json_schema"]},
        "json_schema": {"type": "object", "properties": {"schema": {"type": "object"}}},
    },
    "required": ["type"],
}
_CHAT_TOOL_CHOICE: Final[Schema] = {
    "description": "Which tools the model may or must call: `auto`, `none`, `required`, a "
    "function with its name, or some that are allowed.",
    "anyOf": [{"type": "string", "enum": ["auto", "none", "required"]}, {"type": "object"}],
}


def _never(what: str) -> dict[str, Any]:
    return {"description": f"{what} are not kept: anything but null is refused.", "type": "null"}


OPENAI: Final = Api(
    name="openai",
    words="OpenAI's API.",
    error=ErrorBody,
    parameters={
        "response_id": "A response's id. None is kept.",
        "model": "A model's name, which may have slashes and a colon.",
    },
    fields={
        (wire.AskedMessage, "content"): _CONTENT,
        (wire.ChatRequest, "stop"): _STOP,
        (wire.ChatRequest, "response_format"): _RESPONSE_FORMAT,
        (wire.ChatRequest, "tool_choice"): _CHAT_TOOL_CHOICE,
        (wire.CompletionRequest, "stop"): _STOP,
        (wire.CompletionRequest, "response_format"): _RESPONSE_FORMAT,
        (wire.CompletionRequest, "prompt"): _PROMPT,
        (wire.EmbeddingsRequest, "input"): _TEXTS,
        (responseswire.ResponsesRequest, "input"): _INPUT,
        (responseswire.ResponsesRequest, "tool_choice"): _TOOL_CHOICE,
        (responseswire.ResponsesRequest, "conversation"): _never("Conversations"),
        (responseswire.ResponsesRequest, "prompt"): _never("Prompts"),
        (responseswire.ResponseObject, "tool_choice"): _TOOL_CHOICE,
    },
    rows=(
        Row(
            method="POST",
            path="/v1/chat/completions",
            name="createChatCompletion",
            summary="Answer a conversation.",
            request=wire.ChatRequest,
            replies=(
                Reply((wire.ChatCompletion,), words="An object, or events with `stream`."),
                Reply((wire.ChatChunk, ErrorBody), EVENTS, ends_with=_DONE),
            ),
            errors=COMPUTES,
        ),
        Row(
            method="POST",
            path="/v1/completions",
            name="createCompletion",
            summary="Go on with a prompt.",
            request=wire.CompletionRequest,
            replies=(
                Reply((wire.Completion,), words="An object, or events with `stream`."),
                Reply((wire.Completion, ErrorBody), EVENTS, ends_with=_DONE),
            ),
            errors=COMPUTES,
        ),
        Row(
            method="POST",
            path="/v1/embeddings",
            name="createEmbeddings",
            summary="Turn texts into vectors.",
            request=wire.EmbeddingsRequest,
            replies=(Reply((wire.EmbeddingsResponse,)),),
            errors=COMPUTES,
        ),
        Row(
            method="POST",
            path="/v1/rerank",
            name="rerankForJina",
            summary="Say how well documents answer a query.",
            request=wire.RerankRequest,
            replies=(Reply((wire.RerankResponse,)),),
            errors=COMPUTES,
        ),
        Row(
            method="GET",
            path="/v1/models",
            name="listModelObjects",
            summary="List the stored models.",
            replies=(Reply((wire.ModelList,)),),
            errors=READS,
        ),
        Row(
            method="GET",
            path="/v1/models/{model}",
            name="retrieveModelObject",
            summary="Return one stored model.",
            replies=(Reply((wire.ModelEntry,)),),
            errors=(400, 404, 500),
        ),
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

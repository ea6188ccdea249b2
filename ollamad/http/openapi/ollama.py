"""The rows of Ollama's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ollamad.http.errors import ErrorBody
from ollamad.http.ollama import wire
from ollamad.http.openapi.rows import COMPUTES, NDJSON, READS, STORES, TEXT, Api, Reply, Row, Schema
from ollamad.options import OPTIONS, OptionSpec, OptionType

_KEEP_ALIVE: Final[Schema] = {
    "description": "How long the model stays after this: seconds or a duration such as `5m`; "
    "negative is forever, 0 is not at all.",
    "type": ["number", "string", "null"],
}
_FORMAT: Final[Schema] = {
    "description": "What the answer must be: `json`, or a JSON Schema.",
    "anyOf": [
        {"type": "string", "enum": ["", "json"]},
        {"type": "object", "description": "A JSON Schema."},
        {"type": "null"},
    ],
}
_THINK: Final[Schema] = {
    "description": "Whether to think, or how much.",
    "anyOf": [
        {"type": "boolean"},
        {"type": "string", "enum": ["low", "medium", "high", "max"]},
        {"type": "null"},
    ],
}
_VECTORS: Final[Schema] = {
    "description": "A vector for each text.",
    "type": "array",
    "items": {"type": "array", "items": {"type": "number"}},
}
_TEXTS: Final[Schema] = {
    "description": "A text, or several.",
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "null"},
    ],
}
_LICENSE: Final[Schema] = {**_TEXTS, "description": "A licence's text, or several."}

_TYPES: Final[Mapping[OptionType, Schema]] = {
    OptionType.INTEGER: {"type": ["integer", "null"]},
    OptionType.FLOAT: {"type": ["number", "null"]},
    OptionType.BOOLEAN: {"type": ["boolean", "null"]},
    OptionType.STRINGS: {"type": ["array", "null"], "items": {"type": "string"}},
    OptionType.NUMBERS: {"type": ["array", "null"], "items": {"type": "number"}},
    OptionType.CHOICE: {},
    OptionType.OVERRIDES: {"type": ["array", "null"], "items": {"type": "string"}},
    OptionType.BIASES: {
        "type": ["object", "null"],
        "additionalProperties": {"type": "number"},
    },
}


def _option(spec: OptionSpec) -> Schema:
    schema = dict(_TYPES[spec.type])
    if spec.choices:
        schema["enum"] = [*spec.choices, *([True, False] if "on" in spec.choices else []), None]
    if spec.minimum is not None and spec.type in {OptionType.INTEGER, OptionType.FLOAT}:
        schema["minimum"] = spec.minimum
    if spec.maximum is not None:
        schema["maximum"] = spec.maximum
    return schema


_OPTIONS: Final[Schema] = {
    "description": "How the model is loaded and how it answers. Others are ignored.",
    "type": "object",
    "properties": {name: _option(spec) for name, spec in OPTIONS.items()},
}
_OPTIONS_REF: Final[Schema] = {"$ref": "#/components/schemas/ollama.Options"}

_STREAM: Final = "One object, or one a line with `stream`."
_NOTHING: Final = (Reply(content_type=""),)

OLLAMA: Final = Api(
    name="ollama",
    words="Ollama's own API. Durations are nanoseconds, times RFC 3339.",
    error=ErrorBody,
    parameters={
        "digest": "`sha256:` and 64 hexadecimal digits.",
        "key": "A key's name.",
    },
    shared={"Options": _OPTIONS},
    fields={
        (wire.GenerateRequest, "format"): _FORMAT,
        (wire.GenerateRequest, "think"): _THINK,
        (wire.GenerateRequest, "keep_alive"): _KEEP_ALIVE,
        (wire.GenerateRequest, "options"): _OPTIONS_REF,
        (wire.ChatRequest, "format"): _FORMAT,
        (wire.ChatRequest, "think"): _THINK,
        (wire.ChatRequest, "keep_alive"): _KEEP_ALIVE,
        (wire.ChatRequest, "options"): _OPTIONS_REF,
        (wire.EmbedRequest, "input"): _TEXTS,
        (wire.EmbedRequest, "options"): _OPTIONS_REF,
        (wire.EmbedRequest, "keep_alive"): _KEEP_ALIVE,
        (wire.EmbeddingsRequest, "options"): _OPTIONS_REF,
        (wire.EmbeddingsRequest, "keep_alive"): _KEEP_ALIVE,
        (wire.EmbedResponse, "embeddings"): _VECTORS,
        (wire.CreateRequest, "parameters"): _OPTIONS_REF,
        (wire.CreateRequest, "license"): _LICENSE,
    },
    rows=(
        Row(
            method="GET",
            path="/",
            name="isRunning",
            summary="Tell that the daemon runs.",
            replies=(Reply(content_type=TEXT),),
        ),
        Row(
            method="GET",
            path="/api/version",
            name="version",
            summary="Tell the daemon's version.",
            replies=(Reply((wire.VersionResponse,)),),
        ),
        Row(
            method="GET",
            path="/api/tags",
            name="listModels",
            summary="List the stored models.",
            replies=(Reply((wire.TagsResponse,)),),
            errors=READS,
        ),
        Row(
            method="GET",
            path="/api/ps",
            name="listRunning",
            summary="List the models in memory, and what their engines do.",
            replies=(Reply((wire.PsResponse,)),),
            errors=READS,
        ),
        Row(
            method="POST",
            path="/api/show",
            name="showModel",
            summary="Describe a stored model.",
            request=wire.ModelRequest,
            replies=(Reply((wire.ShowResponse,)),),
            errors=STORES,
        ),
        Row(
            method="POST",
            path="/api/copy",
            name="copyModel",
            summary="Give a stored model another name.",
            request=wire.CopyRequest,
            replies=_NOTHING,
            errors=STORES,
        ),
        Row(
            method="DELETE",
            path="/api/delete",
            name="deleteModel",
            summary="Delete a stored model's name, and what nothing else needs.",
            request=wire.ModelRequest,
            replies=_NOTHING,
            errors=STORES,
        ),
        Row(
            method="POST",
            path="/api/generate",
            name="generate",
            summary="Answer a prompt; without one, load or unload a model.",
            request=wire.GenerateRequest,
            replies=(
                Reply((wire.GenerateResponse,), words=_STREAM),
                Reply((wire.GenerateResponse, ErrorBody), NDJSON),
            ),
            errors=COMPUTES,
        ),
        Row(
            method="POST",
            path="/api/chat",
            name="chat",
            summary="Answer a conversation; without messages, load or unload a model.",
            request=wire.ChatRequest,
            replies=(
                Reply((wire.ChatResponse,), words=_STREAM),
                Reply((wire.ChatResponse, ErrorBody), NDJSON),
            ),
            errors=COMPUTES,
        ),
        Row(
            method="POST",
            path="/api/embed",
            name="embed",
            summary="Turn texts into vectors.",
            request=wire.EmbedRequest,
            replies=(Reply((wire.EmbedResponse,)),),
            errors=COMPUTES,
        ),
        Row(
            method="POST",
            path="/api/embeddings",
            name="embedOne",
            summary="Turn a text into a vector: the older form.",
            request=wire.EmbeddingsRequest,
            replies=(Reply((wire.EmbeddingsResponse,)),),
            errors=COMPUTES,
        ),
        Row(
            method="POST",
            path="/api/rerank",
            name="rerank",
            summary="Tell how well each document answers a query.",
            request=wire.RerankRequest,
            replies=(Reply((wire.RerankResponse,)),),
            errors=COMPUTES,
        ),
        Row(
            method="POST",
            path="/api/create",
            name="createModel",
            summary="Create a model from uploaded files or from another model.",
            request=wire.CreateRequest,
            replies=(
                Reply((wire.StatusLine,), words=_STREAM),
                Reply((wire.StatusLine, ErrorBody), NDJSON),
            ),
            errors=STORES,
        ),
        Row(
            method="HEAD",
            path="/api/blobs/{digest}",
            name="hasBlob",
            summary="Tell whether a file is stored.",
            replies=_NOTHING,
            errors=STORES,
        ),
        Row(
            method="POST",
            path="/api/blobs/{digest}",
            name="uploadBlob",
            summary="Store a file.",
            uploads=True,
            replies=(
                Reply(content_type="", words="It was there already."),
                Reply(content_type="", status=201),
            ),
            errors=STORES,
        ),
        Row(
            method="GET",
            path="/api/status",
            name="cloudStatus",
            summary="Tell that nothing is used of ollama.com.",
            replies=(Reply((wire.StatusResponse,)),),
        ),
        Row(
            method="POST",
            path="/api/me",
            name="whoAmI",
            summary="Tell that nobody is signed in.",
            errors=(401,),
        ),
        Row(
            method="POST",
            path="/api/signout",
            name="signOut",
            summary="Tell that nobody is signed in.",
            errors=(401,),
        ),
        Row(
            method="DELETE",
            path="/api/user/keys/{key}",
            name="deleteKey",
            summary="Tell that nobody is signed in.",
            errors=(401,),
        ),
        Row(
            method="POST",
            path="/api/experimental/web_search",
            name="webSearch",
            summary="Refuse to search the web.",
            errors=(400, 403, 413),
        ),
        Row(
            method="POST",
            path="/api/experimental/web_fetch",
            name="webFetch",
            summary="Refuse to read the web.",
            errors=(400, 403, 413),
        ),
        Row(
            method="GET",
            path="/api/experimental/model-recommendations",
            name="recommendations",
            summary="Recommend no models.",
            replies=(Reply((wire.RecommendationsResponse,)),),
        ),
    ),
)

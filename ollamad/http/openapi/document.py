"""The OpenAPI document, made of rows and of the types of the wire. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from ollamad import __version__
from ollamad.http.openapi.rows import BYTES, EVENTS, JSON, Api, Kind, Reply, Row

VERSION: Final = "3.1.0"
"""The version of OpenAPI: the first whose schemas are JSON Schema's own."""

_ABOUT: Final = """\
A local-LLM daemon with the APIs of Ollama, OpenAI and Anthropic.

Requests are read leniently: unknown fields are ignored, `null` is the same as leaving a field out,
and the content type does not matter. Routes with GET answer HEAD as well. Streams are one JSON
object a line (`application/x-ndjson`) or server-sent events (`text/event-stream`); an error after
a stream's first byte is its last line or event."""

_PARAMETER: Final = re.compile(r"\{(\w+)\}")

_FAILURES: Final[Mapping[int, str]] = {
    400: "The request cannot be meant: the message says what is wrong with it.",
    401: "There are no accounts here.",
    403: "It would need ollama.com, and nothing leaves this machine.",
    404: "What the request names is not here.",
    413: "The body is larger than this route takes.",
    500: "It cannot be served, and trying again does not help by itself.",
    503: "It cannot be served now: the header says when to try again.",
}


def document(apis: Sequence[Api]) -> dict[str, Any]:
    """Return the document for *apis*, its keys always in the same order. It is the caller's own."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {}
    failures: dict[str, Any] = {}
    for api in apis:
        refs = _add_schemas(api, schemas)
        for row in api.rows:
            paths.setdefault(row.path, {})[row.method.lower()] = _operation(api, row, refs)
        used = sorted({status for row in api.rows for status in row.errors})
        failures |= {
            _failure_name(api, status): _failure(status, refs[api.error]) for status in used
        }
    return {
        "openapi": VERSION,
        "info": {"title": "ollamad", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": api.name, "description": api.words} for api in apis],
        "paths": paths,
        "components": {"schemas": schemas, "responses": failures},
    }


def _add_schemas(api: Api, schemas: dict[str, Any]) -> Mapping[Kind, Any]:
    """Add what *api*'s types look like to *schemas*; return the reference to each type."""
    kinds: dict[Kind, None] = {}  # A set that keeps its order.
    for row in api.rows:
        if row.errors:
            kinds[api.error] = None
        if row.request is not None:
            kinds[row.request] = None
        kinds |= dict.fromkeys(kind for reply in row.replies for kind in reply.kinds)
    refs, components = msgspec.json.schema_components(
        kinds, ref_template=f"#/components/schemas/{api.name}.{{name}}"
    )
    components |= copy.deepcopy(dict(api.shared))
    for name in sorted(components):
        schemas[f"{api.name}.{name}"] = components[name]
    for (kind, field), schema in api.fields.items():
        properties = schemas[f"{api.name}.{kind.__name__}"]["properties"]
        kept = {key: value for key, value in properties[field].items() if key == "default"}
        properties[field] = copy.deepcopy({**schema, **kept})
    return dict(zip(kinds, refs, strict=True))


def _operation(api: Api, row: Row, refs: Mapping[Kind, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [api.name],
        "operationId": f"{api.name}.{row.name}",
        "summary": row.summary,
    }
    names = _PARAMETER.findall(row.path)
    if names:
        operation["parameters"] = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": api.parameters[name],
                "schema": {"type": "string"},
            }
            for name in names
        ]
    if row.uploads:
        operation["requestBody"] = {"required": True, "content": {BYTES: {}}}
    elif row.request is not None:
        content = {JSON: {"schema": refs[row.request]}}
        operation["requestBody"] = {"required": True, "content": content}
    responses: dict[str, Any] = {}
    for reply in row.replies:
        _add_reply(responses, reply, refs)
    for status in row.errors:
        responses[str(status)] = {"$ref": f"#/components/responses/{_failure_name(api, status)}"}
    operation["responses"] = responses
    return operation


def _add_reply(responses: dict[str, Any], reply: Reply, refs: Mapping[Kind, Any]) -> None:
    phrase = HTTPStatus(reply.status).phrase
    told = responses.setdefault(str(reply.status), {"description": reply.words or f"{phrase}."})
    if not reply.content_type:
        return
    shapes = [refs[kind] for kind in reply.kinds]
    media: dict[str, Any] = {}
    if shapes:
        shape = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
        media["schema"] = _event(shape, reply.ends_with) if reply.content_type == EVENTS else shape
    told.setdefault("content", {})[reply.content_type] = media


def _event(shape: Any, ends_with: str) -> dict[str, Any]:
    """Return the schema of one event of a stream: its data is JSON of *shape*, or a last word."""
    data: dict[str, Any] = {"type": "string", "contentMediaType": JSON, "contentSchema": shape}
    if ends_with:
        data = {"anyOf": [data, {"const": ends_with}]}
    properties = {"event": {"type": "string"}, "data": data}
    return {"type": "object", "properties": properties, "required": ["data"]}


def _failure_name(api: Api, status: int) -> str:
    return f"{api.name}.{status}"


def _failure(status: int, ref: Any) -> dict[str, Any]:
    failure: dict[str, Any] = {"description": _FAILURES[status]}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        failure["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
        }
    failure["content"] = {JSON: {"schema": ref}}
    return failure

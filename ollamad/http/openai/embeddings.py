"""POST /v1/embeddings: texts to vectors."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from quart import Quart, Response

from ollamad.errors import UnsupportedOption
from ollamad.http.doors import JSON_TYPE, Doors, read_body
from ollamad.http.ollama.embed import vectors_json
from ollamad.http.openai.asking import keep_alive_of
from ollamad.http.openai.errors import refused
from ollamad.http.openai.wire import (
    EmbeddingEntry,
    EmbeddingsRequest,
    EmbeddingsResponse,
    InputUsage,
)
from ollamad.options import parse_options

DIMENSIONS_MAX: Final = 2**31 - 1
"""What the engine takes as a number."""
_FLOAT_BYTES: Final = 4
_FLOAT, _BASE64 = "float", "base64"


def register(app: Quart, doors: Doors) -> None:
    """Add the route."""

    @app.post("/v1/embeddings")
    async def create_embeddings() -> Response:
        return await _embed(doors, await read_body(EmbeddingsRequest))


async def _embed(doors: Doors, body: EmbeddingsRequest) -> Response:
    if not body.model:
        raise refused("model", "the field is missing")
    texts = input_of(body.input)
    encoding = body.encoding_format.strip().lower()
    if encoding not in {_FLOAT, _BASE64}:
        raise refused(
            "encoding_format",
            f"Invalid value for 'encoding_format' = {body.encoding_format[:20]}. Supported values: "
            "['float', 'base64'].",
        )
    if body.dimensions is not None and not 1 <= body.dimensions <= DIMENSIONS_MAX:
        raise refused("dimensions", "must be at least 1")
    model = await doors.find(body.model)
    try:
        load, _ = parse_options(model.parameters, body.options)
    except UnsupportedOption as exc:
        raise refused("options", exc.message) from exc
    load = msgspec.structs.replace(load, embedding=True)
    lease = await doors.lease(model, load, keep_alive_of(body.keep_alive))
    embedded = await lease.embed(texts, truncate=body.truncate, dimensions=body.dimensions or 0)
    rows = _rows(embedded.vectors, embedded.n_dims)
    answer = EmbeddingsResponse(
        data=[
            EmbeddingEntry(
                embedding=base64.b64encode(row).decode()
                if encoding == _BASE64
                else msgspec.Raw(vectors_json(row, embedded.n_dims)[1:-1]),
                index=index,
            )
            for index, row in enumerate(rows)
        ],
        model=body.model,
        usage=InputUsage(prompt_tokens=embedded.prompt_tokens, total_tokens=embedded.prompt_tokens),
    )
    return Response(msgspec.json.encode(answer), content_type=JSON_TYPE)


def input_of(value: Any) -> list[str]:  # a JSON value of any shape
    """Return the texts to embed, one at least. Raises InvalidBody."""
    match value:
        case str():
            return [value]
        case [str(), *_] if all(isinstance(text, str) for text in value):
            return list(value)
        case [int() | [int(), *_], *_]:
            raise refused(
                "input",
                "invalid input type: tokens are not turned into vectors, since whoever has cut the "
                "text into them may have another vocabulary than the model; send the text",
            )
        case None | []:
            raise refused("input", "invalid input: must be a string or an array of strings")
        case _:
            raise refused("input", "invalid input type: must be a string or an array of strings")


def _rows(vectors: bytes, n_dims: int) -> Sequence[bytes]:
    """Return the vectors, 32-bit floats with the lowest byte first, one by one."""
    n_bytes = _FLOAT_BYTES * n_dims
    return [vectors[begin : begin + n_bytes] for begin in range(0, len(vectors), n_bytes)]

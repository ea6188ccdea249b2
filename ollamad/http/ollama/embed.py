"""POST /api/embed and /api/embeddings: texts to vectors."""

from __future__ import annotations

import array
import sys
from typing import Any, Final

import msgspec
import trio
from quart import Quart, Response

from ollamad.errors import GenerationFailed, InvalidBody, ModelNotFound
from ollamad.http import errors
from ollamad.http.doors import JSON_TYPE, Doors, json_answer, read_body, read_keep_alive
from ollamad.http.ollama.wire import (
    NUMBER_MAX,
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbedRequest,
    EmbedResponse,
    nanoseconds,
)
from ollamad.modelinfo import StoredModel
from ollamad.options import parse_options
from ollamad.supervisor.leases import Lease

WRITTEN_AT_ONCE_BYTES: Final = 256 << 10
"""Vectors that are written as JSON without a thread: it takes some 3 ms."""


def register(app: Quart, doors: Doors) -> None:
    """Add the routes."""

    @app.post("/api/embed")
    async def embed() -> Response:
        return await _embed(doors, await read_body(EmbedRequest))

    @app.post("/api/embeddings")
    async def embeddings() -> Response:
        return await _embeddings(doors, await read_body(EmbeddingsRequest))


async def _embed(doors: Doors, body: EmbedRequest) -> Response:
    started_at = trio.current_time()
    texts = read_input(body.input)
    if not body.model:
        raise ModelNotFound("model '' not found")
    lease = await _lease(doors, body)
    if not texts:
        return json_answer(EmbedResponse(model=body.model, embeddings=msgspec.Raw(b"[]")))
    try:
        vectors = await lease.embed(
            texts,
            truncate=body.truncate,
            dimensions=min(max(body.dimensions, 0), NUMBER_MAX),
        )
    except GenerationFailed as exc:
        # Ollama calls it the caller's fault whatever fails in here, and clients know it so.
        return Response(errors.body_of(exc.message), 400, content_type=JSON_TYPE)
    answer = EmbedResponse(
        model=body.model,
        embeddings=msgspec.Raw(await _written(vectors.vectors, vectors.n_dims)),
        total_duration=nanoseconds(trio.current_time() - started_at),
        load_duration=nanoseconds(lease.waited_s),
        prompt_eval_count=vectors.prompt_tokens,
    )
    return json_answer(answer)


async def _embeddings(doors: Doors, body: EmbeddingsRequest) -> Response:
    if not body.model:
        raise InvalidBody("model is required")
    lease = await _lease(doors, body)
    if not body.prompt:
        return json_answer(EmbeddingsResponse([]))
    vectors = await lease.embed([body.prompt], normalize=False)
    return json_answer(EmbeddingsResponse(_floats(vectors.vectors).tolist()))


async def _lease(doors: Doors, body: EmbedRequest | EmbeddingsRequest) -> Lease:
    """Return a lease on a runner that makes vectors, of any model: none is asked if it can."""
    keep_alive = read_keep_alive(body.keep_alive)
    model = await _find(doors, body.model)
    load, _ = parse_options(model.parameters, body.options)
    return await doors.lease(model, msgspec.structs.replace(load, embedding=True), keep_alive)


async def _find(doors: Doors, name: str) -> StoredModel:
    try:
        return await doors.find(name)
    except ModelNotFound:
        raise ModelNotFound(f'model "{name}" not found, try pulling it first') from None


def read_input(value: Any) -> list[str]:  # a JSON value of any shape
    """Return the texts that `input` holds. Raises InvalidBody."""
    match value:
        case None | "":
            return []
        case str():
            return [value]
        case list() if all(isinstance(item, str) for item in value):
            return value
        case _:
            raise InvalidBody("invalid input type")


async def _written(data: bytes, n_dims: int) -> bytes:
    """Return rows of 32-bit floats as JSON; many of them are written beside everybody's streams."""
    if len(data) <= WRITTEN_AT_ONCE_BYTES:
        return vectors_json(data, n_dims)
    return await trio.to_thread.run_sync(vectors_json, data, n_dims)


def vectors_json(data: bytes, n_dims: int) -> bytes:
    """Return rows of 32-bit floats as JSON.

    Nine digits are enough to read the same 32-bit number again. Python's floats have 64 bits and
    would be written with 17: faster here (0.6 instead of 2.2 ms for 32 times 384), but half as
    long again on the wire, and more than that slower to read for the client.
    """
    numbers = tuple(_floats(data))
    row = "[" + ",".join(["%.9g"] * n_dims) + "]"
    rows = (row % numbers[begin : begin + n_dims] for begin in range(0, len(numbers), n_dims))
    return ("[" + ",".join(rows) + "]").encode("ascii")


def _floats(data: bytes) -> array.array[float]:
    numbers = array.array("f", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers

"""POST /v1/rerank: how well each document answers a query, in the shape of Jina's and Cohere's API.

They tell how relevant a document is from 0 to 1, which the logistic function makes of the number
that a rank head has.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from quart import Quart, Response

from ollamad.http.doors import JSON_TYPE, Doors, read_body
from ollamad.http.ids import new_id
from ollamad.http.ollama.rerank import rank_documents
from ollamad.http.openai.asking import keep_alive_of
from ollamad.http.openai.errors import refused
from ollamad.http.openai.wire import (
    InputUsage,
    RankedText,
    RerankRequest,
    RerankResponse,
    RerankResult,
)


def register(app: Quart, doors: Doors) -> None:
    """Add the route."""

    @app.post("/v1/rerank")
    async def rerank_documents() -> Response:
        return await _rerank(doors, await read_body(RerankRequest))


async def _rerank(doors: Doors, body: RerankRequest) -> Response:
    if not body.model:
        raise refused("model", "the field is missing")
    if not body.query:
        raise refused("query", "the field is missing")
    if not body.documents:
        raise refused("documents", "there must be one at least")
    if body.top_n is not None and body.top_n < 1:
        raise refused("top_n", "must be at least 1")
    texts = [_text(index, document) for index, document in enumerate(body.documents)]
    keep_alive = keep_alive_of(body.keep_alive)
    ranking = await rank_documents(
        doors,
        await doors.find(body.model),
        body.query,
        texts,
        body.top_n,
        truncate=body.truncate,
        keep_alive=keep_alive,
        shown_name=body.model,
    )
    answer = RerankResponse(
        id=new_id("rerank-"),
        model=body.model,
        results=[
            RerankResult(
                index=index,
                relevance_score=relevance(score),
                document=RankedText(texts[index]) if body.return_documents else msgspec.UNSET,
            )
            for index, score in ranking.places
        ],
        usage=InputUsage(prompt_tokens=ranking.prompt_tokens, total_tokens=ranking.prompt_tokens),
    )
    return Response(msgspec.json.encode(answer), content_type=JSON_TYPE)


def relevance(score: float) -> float:
    """Return a rank head's number as one from 0 to 1."""
    return (1 + math.tanh(score / 2)) / 2  # The logistic function, which cannot overflow so.


def _text(index: int, document: Any) -> str:  # a JSON value of any shape
    match document:
        case str():
            return document
        case {"text": str(text)}:
            return text
        case _:
            raise refused(f"documents[{index}]", 'must be a string or an object with a "text"')

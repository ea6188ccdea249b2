"""POST /api/rerank: how well each document answers a query, by models with a rank head.

Ollama has no such route. The shape is the one that rerankers' APIs share, in Ollama's names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio
from quart import Quart, Response

from ollamad.errors import CapabilityMissing, InvalidBody
from ollamad.http.doors import Doors, json_answer, read_body, read_keep_alive
from ollamad.http.ollama.wire import RankedDocument, RerankRequest, RerankResponse, nanoseconds
from ollamad.modelinfo import StoredModel
from ollamad.options import parse_options


@dataclasses.dataclass(frozen=True, slots=True)
class Ranking:
    """Documents by how well they answer a query, the best first."""

    places: tuple[tuple[int, float], ...]
    """Each document's index, and its score as the model gives it: higher is better."""
    prompt_tokens: int
    """Tokens of all pairs of query and document."""
    load_s: float
    """From asking for the model to having it."""


def register(app: Quart, doors: Doors) -> None:
    """Add the route."""

    @app.post("/api/rerank")
    async def rerank() -> Response:
        started_at = trio.current_time()
        body = await read_body(RerankRequest)
        if not body.model:
            raise InvalidBody("model is required")
        model = await doors.find(body.model)
        texts = [_text(document) for document in body.documents]
        ranking = await rank_documents(
            doors,
            model,
            body.query,
            texts,
            body.top_n,
            truncate=body.truncate,
            keep_alive=read_keep_alive(body.keep_alive),
            options=body.options,
            shown_name=body.model,
        )
        return json_answer(_answer(body, ranking, trio.current_time() - started_at))


async def rank_documents(
    doors: Doors,
    model: StoredModel,
    query: str,
    documents: Sequence[str],
    top_n: int | None = None,
    *,
    truncate: bool = True,
    keep_alive: float | None = None,
    options: Mapping[str, Any] | None = None,
    shown_name: str = "",
) -> Ranking:
    """Return the *top_n* of *documents* (all, if it is `None`), and what they cost.

    The lease ends with the request. Raises CapabilityMissing for a model without a rank head,
    ContextTooLong for a query that leaves no room, and without *truncate* for any document.
    """
    if not model.facts.is_ranking:
        raise CapabilityMissing(
            f'"{shown_name or model.name.display}" does not support rerank: '
            "only models with a rank head do, and it has none"
        )
    if not query:
        raise InvalidBody("query is required")
    if not documents:
        raise InvalidBody("documents are required")
    load, _ = parse_options(model.parameters, options or {})
    load = msgspec.structs.replace(load, embedding=True)
    lease = await doors.lease(model, load, keep_alive)
    ranked = await lease.rank(query, documents, truncate=truncate)
    order = sorted(enumerate(ranked.scores), key=lambda place: -place[1])
    return Ranking(
        places=tuple(order[: len(order) if top_n is None else max(top_n, 0)]),
        prompt_tokens=ranked.prompt_tokens,
        load_s=lease.waited_s,
    )


def _answer(body: RerankRequest, ranking: Ranking, total_s: float) -> RerankResponse:
    return RerankResponse(
        model=body.model,
        results=[
            RankedDocument(
                index=index,
                relevance_score=score,
                document=body.documents[index] if body.return_documents else msgspec.UNSET,
            )
            for index, score in ranking.places
        ],
        total_duration=nanoseconds(total_s),
        load_duration=nanoseconds(ranking.load_s),
        prompt_eval_count=ranking.prompt_tokens,
    )


def _text(document: Any) -> str:  # a JSON value of any shape
    """Return a document's text: it may be given as `{"text": ...}`. Raises InvalidBody."""
    match document:
        case str() | {"text": str()}:
            return document if isinstance(document, str) else str(document["text"])
        case _:
            raise InvalidBody('documents: expected strings or objects with a "text"')

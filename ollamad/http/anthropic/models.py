"""GET /v1/models in Anthropic's shape, for its clients: OpenAI's ask for the same path.

Anthropic's clients state the version of its API in each request, and nobody else does. So they are
answered before routing, and the routes of OpenAI's API need not know of them.
"""

from __future__ import annotations

from typing import Final

from quart import Quart, Response, request

from ollamad.errors import OllamadError
from ollamad.http.anthropic.wire import Model, ModelPage
from ollamad.http.dialects import error_answer
from ollamad.http.doors import Doors, json_answer
from ollamad.http.ollama.wire import rfc3339
from ollamad.modelinfo import StoredModel

PATH: Final = "/v1/models"
VERSION_HEADER: Final = "anthropic-version"
_OWN_PATH: Final = "/v1/messages"
"""A path whose errors have Anthropic's shape."""


def register(app: Quart, doors: Doors) -> None:
    """Answer Anthropic's clients where they ask for models."""

    @app.before_request
    async def models() -> Response | None:
        if request.method != "GET" or VERSION_HEADER not in request.headers:
            return None
        if request.path == PATH:
            return await _page(doors)
        if request.path.startswith(PATH + "/"):
            return await _one(doors, request.path.removeprefix(PATH + "/"))
        return None


async def _page(doors: Doors) -> Response:
    """Return all models, the newest first, on one page: a machine has few."""
    stored = await doors.on_files(doors.catalog.list)
    models = [_model(one, one.name.display) for one in stored]
    ids = [model.id for model in models]
    return json_answer(
        ModelPage(data=models, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None)
    )


async def _one(doors: Doors, name: str) -> Response:
    """Return the model that *name* names, under that name."""
    try:
        return json_answer(_model(await doors.find(name), name))
    except OllamadError as exc:
        return error_answer(_OWN_PATH, exc)


def _model(model: StoredModel, shown_name: str) -> Model:
    return Model(
        id=shown_name,
        display_name=shown_name,
        created_at=rfc3339(model.modified_at),
        max_input_tokens=model.facts.n_ctx_train or None,
    )

"""GET /v1/models in Anthropic's shape, for its clients: OpenAI's ask for the same path.

Anthropic's clients state the version of its API in each request, and nobody else does.
"""

from __future__ import annotations

from typing import Final

from quart import Response, request

from ollamad.http.anthropic.wire import Model, ModelPage
from ollamad.http.doors import Doors, json_answer
from ollamad.http.ollama.wire import rfc3339
from ollamad.modelinfo import StoredModel

VERSION_HEADER: Final = "anthropic-version"


def is_anthropics_client() -> bool:
    """Return whether the request that is being handled comes from a client of Anthropic's API."""
    return VERSION_HEADER in request.headers


async def list_models(doors: Doors) -> Response:
    """Return all models, the newest first, on one page: a machine has few."""
    stored = await doors.on_files(doors.catalog.list)
    models = [_model(one, one.name.display) for one in stored]
    ids = [model.id for model in models]
    return json_answer(
        ModelPage(data=models, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None)
    )


async def show_model(doors: Doors, name: str) -> Response:
    """Return the model that *name* names, under that name. Raises ModelNotFound, InvalidName."""
    return json_answer(_model(await doors.find(name), name))


def _model(model: StoredModel, shown_name: str) -> Model:
    return Model(
        id=shown_name,
        display_name=shown_name,
        created_at=rfc3339(model.modified_at),
        max_input_tokens=model.facts.n_ctx_train or None,
    )

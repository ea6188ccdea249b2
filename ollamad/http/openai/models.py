"""GET /v1/models and /v1/models/{model}: what is stored."""

from __future__ import annotations

import msgspec
from quart import Quart, Response

from ollamad.http.doors import JSON_TYPE, Doors
from ollamad.http.openai.wire import ModelEntry, ModelList
from ollamad.modelinfo import StoredModel


def register(app: Quart, doors: Doors) -> None:
    """Add the routes."""

    @app.get("/v1/models")
    async def list_models() -> Response:
        models = await doors.on_files(doors.catalog.list)
        return _answer(ModelList(data=[_entry(model, model.name.display) for model in models]))

    @app.get("/v1/models/<path:model>")
    async def retrieve_model(model: str) -> Response:
        return _answer(_entry(await doors.find(model), model))


def _entry(model: StoredModel, shown_name: str) -> ModelEntry:
    return ModelEntry(
        id=shown_name,
        created=int(model.modified_at.timestamp()),
        owned_by=model.name.namespace,
    )


def _answer(whole: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(whole), content_type=JSON_TYPE)

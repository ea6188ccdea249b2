"""What is stored and what runs: tags, ps, show, copy, delete, version."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import trio
from quart import Quart, Response, request

from ollamad import __version__
from ollamad.convert.ggufheader import GgufHeader, LazyArray, MetaValue, read_header
from ollamad.errors import CloudDisabled, InvalidBody, InvalidName, ModelNotFound, OllamadError
from ollamad.http.doors import CLOUD_IS_OFF, Doors, json_answer, read_body
from ollamad.http.modelsource import Source, read_source
from ollamad.http.ollama.wire import (
    CopyRequest,
    Details,
    EngineNumbers,
    ListedModel,
    ModelRequest,
    PsResponse,
    RunningModel,
    ShowMessage,
    ShowResponse,
    TagsResponse,
    TensorEntry,
    VersionResponse,
    nanoseconds,
    rfc3339,
)
from ollamad.http.prompt.render import template_of
from ollamad.modelinfo import StoredModel
from ollamad.names import ModelName
from ollamad.registry.modelfile import render_modelfile, render_parameters
from ollamad.registry.store import Store
from ollamad.runners.states import RunnerState
from ollamad.supervisor.views import ResidentView

FOREVER: Final = timedelta(days=365 * 292)
"""How far ahead Ollama puts the end of a model that stays forever."""

OLLAMA_VERSION: Final = "0.33.0"
"""The Ollama whose API this is (August 2026). Editors and chat programs compare it with what they
need (GitHub Copilot: 0.6.4) and refuse to work with less, which our own version would be."""

_SHOWN_STATES: Final = frozenset({RunnerState.READY, RunnerState.DRAINING})
_COPILOT: Final = "GitHubCopilotChat/"
"""How its `User-Agent` begins: it shows the base name as the model's, which must be what it asked
for."""
_HIDDEN_KEYS: Final = frozenset({"general.name", "tokenizer.chat_template"})


def register(app: Quart, doors: Doors) -> None:
    """Add the routes."""

    @app.get("/")
    async def root() -> Response:
        return Response("Ollama is running", content_type="text/plain; charset=utf-8")

    @app.get("/api/version")
    async def version() -> Response:
        return json_answer(VersionResponse(OLLAMA_VERSION, ollamad=__version__))

    @app.get("/api/tags")
    async def tags() -> Response:
        models = await doors.on_files(doors.catalog.list)
        return json_answer(TagsResponse([_listed(model) for model in models]))

    @app.get("/api/ps")
    async def ps() -> Response:
        return json_answer(PsResponse(await _running(doors)))

    @app.post("/api/show")
    async def show() -> Response:
        body = await read_body(ModelRequest)
        model = await _shown_model(doors, body)
        shown = await doors.on_files(lambda: _shown(model, body))
        if request.user_agent.string.startswith(_COPILOT):
            shown.model_info["general.basename"] = body.model or body.name
        return json_answer(shown)

    @app.post("/api/copy")
    async def copy() -> Response:
        body = await read_body(CopyRequest)
        source, destination = _name("source", body.source), _name("destination", body.destination)
        try:
            await doors.on_files(
                lambda: doors.store.copy(
                    doors.store.resolve(source), doors.store.resolve(destination)
                )
            )
        except ModelNotFound:
            raise ModelNotFound(f'model "{body.source}" not found') from None
        return Response(b"", 200)

    @app.delete("/api/delete")
    async def delete() -> Response:
        body = await read_body(ModelRequest)
        text = _wanted(body)
        try:
            await doors.on_files(lambda: _deleted(doors.store, text))
        except ModelNotFound:
            raise ModelNotFound(f"model '{text}' not found") from None
        except InvalidName:
            raise InvalidName(f'name "{text}" is invalid') from None
        return Response(b"", 200)


def _wanted(body: ModelRequest) -> str:
    if not (text := (body.model or body.name).strip()):
        raise InvalidBody("model is required")
    return text


async def _shown_model(doors: Doors, body: ModelRequest) -> StoredModel:
    text = _wanted(body)
    try:
        return await doors.find(text)
    except ModelNotFound:
        base, _ = read_source(text)
        raise ModelNotFound(f"model '{ModelName.parse(base).display}' not found") from None
    except CloudDisabled:
        raise CloudDisabled(f"{CLOUD_IS_OFF} remote model details are unavailable") from None


def _deleted(store: Store, text: str) -> None:
    """Delete a model, also under a name that says that it is here."""
    try:
        store.delete(store.resolve(ModelName.parse(text)))
    except (InvalidName, ModelNotFound):
        base, source = read_source(text)
        if source is not Source.LOCAL:
            raise
        store.delete(store.resolve(ModelName.parse(base)))


def _name(role: str, text: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except InvalidName:
        raise InvalidName(f'{role} "{text}" is invalid') from None


def _details(model: StoredModel, *, full: bool = False, parent: bool = True) -> Details:
    details, facts = model.details, model.facts
    return Details(
        parent_model=details.parent_model if parent else "",
        format=details.format,
        family=details.family,
        families=list(details.families) or None,
        parameter_size=details.parameter_size,
        quantization_level=details.quantization_level,
        context_length=facts.n_ctx_train if full else 0,
        embedding_length=facts.n_embd if full else 0,
    )


def _listed(model: StoredModel) -> ListedModel:
    return ListedModel(
        name=model.name.display,
        model=model.name.display,
        modified_at=rfc3339(model.modified_at.astimezone()),
        size=model.size_bytes,
        digest=model.digest,
        details=_details(model, full=True),
        capabilities=list(model.capabilities),
    )


async def _running(doors: Doors) -> list[RunningModel]:
    shown = [view for view in doors.supervisor.residents() if view.state in _SHOWN_STATES]
    shown.sort(key=lambda view: -view.expires_at)
    running = []
    for view in shown:
        model = await _model_of(doors, view)
        if model is not None:
            running.append(_running_model(doors, view, model))
    return running


async def _model_of(doors: Doors, view: ResidentView) -> StoredModel | None:
    """Return the model that runs: by its name, or by another name of the same weights.

    `None` if all its names were deleted meanwhile: nothing is left to describe it by.
    """
    try:
        return await doors.find(view.name)
    except OllamadError:
        stored = await doors.on_files(doors.catalog.list)
        return next((m for m in stored if m.weights_id == view.weights_id), None)


def _running_model(doors: Doors, view: ResidentView, model: StoredModel) -> RunningModel:
    left_s = view.expires_at - trio.current_time()
    left = timedelta(seconds=min(left_s, FOREVER.total_seconds()))
    return RunningModel(
        name=model.name.display,
        model=model.name.display,
        size=view.held_bytes,
        digest=model.digest,
        details=_details(model, parent=False),
        expires_at=rfc3339((doors.clock.now() + left).astimezone(_zone_for(left))),
        size_vram=view.vram_bytes,
        context_length=view.n_ctx,
        engine=_engine_numbers(view),
    )


def _engine_numbers(view: ResidentView) -> EngineNumbers | None:
    gauges = view.gauges
    if gauges is None:
        return None
    return EngineNumbers(
        slots=view.n_slots,
        slots_busy=gauges.slots_busy,
        waiting=gauges.waiting,
        kv_cells=gauges.kv_cells,
        kv_used=gauges.kv_used,
        kv_shared=gauges.kv_shared,
        idle_sequences=gauges.idle_sequences,
        steps=gauges.steps,
        step_duration=nanoseconds(gauges.step_s),
        batch_tokens=gauges.batch_tokens,
        prompt_tokens=gauges.prompt_tokens,
        cached_tokens=gauges.cached_tokens,
        generated_tokens=gauges.generated_tokens,
        forced_tokens=gauges.forced_tokens,
    )


def _zone_for(left: timedelta) -> Any:  # a tzinfo or None
    # Local time is unknown centuries ahead on some systems; UTC always is.
    return UTC if left >= FOREVER else datetime.now().astimezone().tzinfo


def _shown(model: StoredModel, body: ModelRequest) -> ShowResponse:
    header = read_header(model.weights_path)
    model_info = _metadata(header, verbose=body.verbose)
    model_info["general.parameter_count"] = model.facts.n_params
    laid_over = dataclasses.replace(
        model,
        system=body.system or model.system,
        parameters={**model.parameters, **body.options},
    )
    return ShowResponse(
        license="\n".join(model.licenses),
        modelfile=render_modelfile(laid_over, model.name.display),
        parameters=render_parameters(model.parameters),
        template=template_of(model),
        system=laid_over.system,
        details=_details(model),
        messages=[ShowMessage(m.role, m.content) for m in model.messages],
        model_info=dict(sorted(model_info.items())),
        projector_info=_projector_info(model, verbose=body.verbose),
        tensors=[
            TensorEntry(tensor.name, tensor.type.name, list(tensor.shape))
            for tensor in header.tensors
        ],
        capabilities=list(model.capabilities),
        modified_at=rfc3339(model.modified_at.astimezone()),
        requires=model.requires,
    )


def _projector_info(model: StoredModel, *, verbose: bool) -> dict[str, Any]:
    """Return what the first projector's file says of itself; nothing if there is none."""
    if not model.projector_paths:
        return {}
    return dict(sorted(_metadata(read_header(model.projector_paths[0]), verbose=verbose).items()))


def _metadata(header: GgufHeader, *, verbose: bool) -> dict[str, Any]:
    return {
        key: _shown_value(value, verbose=verbose)
        for key, value in header.metadata.items()
        if key not in _HIDDEN_KEYS
    }


def _shown_value(value: MetaValue, *, verbose: bool) -> object:
    """Return a header's value for people: arrays that are not empty only with *verbose*."""
    if not isinstance(value, LazyArray | tuple):
        return value
    if len(value) and not verbose:
        return None
    return list(value.materialise() if isinstance(value, LazyArray) else value)

"""POST /api/create: a model from uploaded files or from another model, with progress."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

from quart import Quart, Response

from ollamad.errors import InvalidBody, OllamadError
from ollamad.http.doors import Doors, json_answer, read_body
from ollamad.http.errors import body_of
from ollamad.http.ollama.wire import CreateRequest, StatusLine, encode
from ollamad.http.prompt import render
from ollamad.http.streaming import NDJSON_TYPE, stream_response
from ollamad.modelinfo import StoredMessage
from ollamad.names import ModelName
from ollamad.registry.create import CreateProgress, CreateSpec, create

PARSING: Final = "parsing GGUF"
_NO_MORE: Final = object()


def register(app: Quart, doors: Doors) -> None:
    """Add the route."""

    @app.post("/api/create")
    async def create_route() -> Response:
        body = await read_body(CreateRequest)
        spec = _spec(body)
        work = create(spec, doors.store, doors.catalog, check_template=render.check)
        statuses = _Statuses(doors, work)
        # What is wrong with the request or its files shows until they have been parsed; an error
        # up to there decides the HTTP status.
        begun = [await statuses.next()]
        while begun[-1] is not None and begun[-1].status == PARSING:
            begun.append(await statuses.next())
        if body.stream:
            return stream_response(_Lines(statuses, begun), NDJSON_TYPE)
        last = begun[-1]
        while (status := await statuses.next()) is not None:
            last = status
        return json_answer(_line(last) if last else StatusLine(status="success"))


class _Statuses:
    """Steps through a creation in a thread: hashing and writing must not stop the daemon."""

    def __init__(self, doors: Doors, work: Iterator[CreateProgress]) -> None:
        self._doors = doors
        self._work = work

    async def next(self) -> CreateProgress | None:
        """Return the next status, `None` after the last. Raises what went wrong."""
        status: Any = await self._doors.on_files(lambda: next(self._work, _NO_MORE))
        return None if status is _NO_MORE else status


class _Lines:
    def __init__(self, statuses: _Statuses, begun: Sequence[CreateProgress | None]) -> None:
        self._statuses = statuses
        self._begun = deque(begun)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            status = self._begun.popleft() if self._begun else await self._statuses.next()
        except OllamadError as exc:
            self._begun.append(None)
            return body_of(exc.message) + b"\n"
        if status is None:
            raise StopAsyncIteration
        return encode(_line(status)) + b"\n"


def _line(progress: CreateProgress) -> StatusLine:
    return StatusLine(
        status=progress.status,
        digest=progress.digest,
        total=progress.total,
        completed=progress.completed,
    )


def _spec(body: CreateRequest) -> CreateSpec:
    """Return what *body* asks for. Raises InvalidName, InvalidBody."""
    name = ModelName.parse(body.model or body.name)
    if body.draft_quantize and not body.draft_files:
        raise InvalidBody("--draft-quantize requires a DRAFT model")
    return CreateSpec(
        name=name,
        from_=body.from_,
        files=body.files,
        adapters=body.adapters,
        draft_files=body.draft_files,
        template=body.template,
        system=body.system,
        licenses=_licenses(body.license),
        parameters=body.parameters,
        messages=tuple(
            StoredMessage(role=message.role, content=message.content or "")
            for message in body.messages
        ),
        quantize=body.quantize or body.quantization,
        remote_host=body.remote_host,
        renderer=body.renderer,
        parser=body.parser,
        requires=body.requires,
        info=body.info,
    )


def _licenses(value: Any) -> tuple[str, ...]:  # a JSON value of any shape
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise InvalidBody("license: expected string or array of strings")

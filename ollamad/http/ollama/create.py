"""POST /api/create: a model from uploaded files or from another model, with progress."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from quart import Quart, Response

from ollamad.errors import InvalidBody, OllamadError
from ollamad.http.doors import Doors, json_answer, read_body
from ollamad.http.errors import body_of
from ollamad.http.ollama.wire import CreateRequest, StatusLine, encode
from ollamad.http.prompt import render
from ollamad.http.streaming import NDJSON_TYPE
from ollamad.modelinfo import StoredMessage
from ollamad.names import ModelName
from ollamad.registry.create import CreateProgress, CreateSpec, create

_NO_MORE: Final = object()


def register(app: Quart, doors: Doors) -> None:
    """Add the route."""

    @app.post("/api/create")
    async def create_route() -> Response:
        body = await read_body(CreateRequest)
        spec = _spec(body)
        statuses = _Statuses(doors, create(spec, doors.store, doors.catalog, check_template=render.check))
        # The first status decides the HTTP status: what is wrong with the request shows there.
        first = await statuses.next()
        if body.stream:
            response = Response(_Lines(statuses, first), content_type=NDJSON_TYPE)
            response.timeout = None
            return response
        last = first
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
    def __init__(self, statuses: _Statuses, first: CreateProgress | None) -> None:
        self._statuses = statuses
        self._next = first
        self._is_over = first is None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._is_over or self._next is None:
            raise StopAsyncIteration
        line = encode(_line(self._next)) + b"\n"
        try:
            self._next = await self._statuses.next()
        except OllamadError as exc:
            self._is_over = True
            return line + body_of(exc.message) + b"\n"
        return line


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

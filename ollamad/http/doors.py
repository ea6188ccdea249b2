"""What the HTTP doors work with, and the few steps that all of them begin with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, MutableMapping
from typing import Any, Final, TypeVar

import msgspec
import trio
from quart import Response, current_app, request

from ollamad.config import HttpConfig
from ollamad.errors import CloudDisabled, InvalidBody, InvalidName, ModelNotFound
from ollamad.http.decode import decode_body
from ollamad.http.modelsource import Source, read_source
from ollamad.http.ollama.wire import encode
from ollamad.http.scope import PIECES_KEY, STACK_KEY, PieceWriter
from ollamad.modelinfo import StoredModel
from ollamad.options import LoadOptions
from ollamad.registry.catalog import Catalog
from ollamad.registry.store import Store
from ollamad.supervisor.leases import Lease
from ollamad.supervisor.service import Supervisor
from ollamad.units import keep_alive_s
from ollamad.wallclock import WallClock

T = TypeVar("T")

JSON_TYPE: Final = "application/json; charset=utf-8"
CLOUD_IS_OFF: Final = "ollama cloud is disabled:"
"""How Ollama begins to say what its cloud would do; clients show it as it is."""
LIMITS_KEY: Final = "OLLAMAD_LIMITS"
"""Where the application's own configuration has the limits of requests."""
FILE_THREADS_MAX: Final = 4
"""Threads that read and write the store for requests, at once."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """The parts of the daemon that requests reach."""

    supervisor: Supervisor
    catalog: Catalog
    store: Store
    config: HttpConfig
    clock: WallClock
    file_threads: trio.CapacityLimiter = dataclasses.field(
        default_factory=lambda: trio.CapacityLimiter(FILE_THREADS_MAX)
    )

    async def on_files(self, work: Callable[[], T]) -> T:
        """Return what *work* returns; it may wait for the disk, so it runs in a thread."""
        return await trio.to_thread.run_sync(work, limiter=self.file_threads)

    async def find(self, name: str) -> StoredModel:
        """Return the model that *name* names.

        Raises InvalidName, ModelNotFound, ModelCorrupt; CloudDisabled for a model of ollama.com.
        """
        try:
            return await self._stored(name.strip())
        except (InvalidName, ModelNotFound):
            base, source = read_source(name.strip())
            if source is Source.CLOUD:
                raise CloudDisabled(f"{CLOUD_IS_OFF} remote model is unavailable") from None
            if source is Source.UNSAID:
                raise
        try:
            return await self._stored(base)
        except ModelNotFound:
            raise ModelNotFound(f"model '{name}' not found") from None

    async def _stored(self, name: str) -> StoredModel:
        known = self.catalog.remembered(name)
        if known is not None:
            return known
        return await self.on_files(lambda: self.catalog.find(name))

    async def lease(
        self, model: StoredModel, options: LoadOptions, keep_alive: float | None
    ) -> Lease:
        """Return a lease that ends with the request."""
        lease = await self.supervisor.lease(model, options, keep_alive, request_client())
        request_stack().callback(lease.release)
        return lease


def request_stack() -> contextlib.ExitStack:
    """Return the exit stack of the request that is being handled."""
    stack: contextlib.ExitStack = _scope()[STACK_KEY]
    return stack


def request_client() -> str:
    """Return the address that the request comes from, without the port; empty if it has none."""
    client = _scope().get("client")
    return str(client[0]) if client else ""


def request_writer() -> PieceWriter | None:
    """Return what writes pieces of the request's answer at once, if its server has such a thing."""
    writer: PieceWriter | None = _scope().get("extensions", {}).get(PIECES_KEY)
    return writer


def _scope() -> MutableMapping[str, Any]:
    return request.scope  # type: ignore[return-value] # Quart's type knows not what is ours in it


async def read_body(kind: type[T]) -> T:
    """Return the request's body as a *kind*, within the limits. Raises InvalidBody."""
    data = await request.get_data(cache=False)
    limits: HttpConfig = current_app.config[LIMITS_KEY]
    return decode_body(data if isinstance(data, bytes) else data.encode(), kind, limits)


def read_keep_alive(value: Any) -> float | None:  # a JSON value of any shape
    """Return a request's keep-alive in seconds, `None` when it says nothing. Raises InvalidBody."""
    if value is None:
        return None
    try:
        return keep_alive_s(value)
    except ValueError as exc:
        raise InvalidBody(str(exc)) from exc


def json_answer(answer: msgspec.Struct, status: int = 200) -> Response:
    """Return *answer* as a response."""
    return Response(encode(answer), status, content_type=JSON_TYPE)

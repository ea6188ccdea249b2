"""Hypercorn's HTTP/1.1 connection, with the parts replaced that cost too much for each line.

The one place that builds on Hypercorn's classes; `http/server.py` uses what is here. Parsing, the
state of the protocol, HTTP/2 and TLS stay Hypercorn's and h11's. What is different:

- What the socket takes at once is written at once, without a lock and without a turn of the
  scheduler. Only the rest waits, so a slow client presses back as before.
- A piece of a chunked body is framed here. h11 has no state inside a chunked body: it adds the
  length and no more.
- An application may write a piece without waiting (`PieceWriter`): at most one is kept here.
- The head goes out with the first piece of the body, in one write, as ASGI allows.
- The idle timer is the deadline of the read that waits for a request, not a task.
- A connection that its client has closed is over at once; Hypercorn's own stays until the idle
  timer is.
"""

from __future__ import annotations

import os
from math import inf
from typing import Any, Final

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState

from ollamad.http.scope import PIECES_KEY

RECEIVE_BYTES: Final = 1 << 16
_CHUNKED: Final = b"\r\ntransfer-encoding: chunked\r\n"


class Connections(WorkerContext):
    """What the connections of one server share."""

    def __init__(self) -> None:
        super().__init__(None)
        self.idle: set[Connection] = set()
        """Those that wait for a request."""

    async def end(self) -> None:
        """Close what is idle now, and the others after their answers."""
        await self.terminated.set()
        for connection in self.idle:
            connection.become_idle()


class _IdleTimer:
    """Stands where Hypercorn has a task that sleeps for as long as a connection is idle."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def restart(self, _task_group: object, _action: object) -> None:
        self._connection.become_idle()

    async def stop(self) -> None:
        self._connection.become_busy()


class Connection(TCPServer):
    """One client's connection."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        connections: Connections,
        # Hypercorn's annotation knows TLS only; both kinds come.
        stream: Any,
    ) -> None:
        super().__init__(app, config, connections, ConnectionState({}), stream)
        self.idle_task = _IdleTimer(self)  # type: ignore[assignment] # has what is called of it
        self._connections = connections
        self._reading = trio.CancelScope()
        self._idle_until = inf
        self._is_over = False
        self._rest = b""
        self._is_plain = isinstance(stream, trio.SocketStream)  # No TLS in between.
        if self._is_plain:
            self._fileno = stream.socket.fileno  # -1 once it is closed.

    # Idle and busy

    def become_idle(self) -> None:
        """Close when no request comes for a while, or at once if the server ends."""
        if self._is_over:
            return  # A request may end after its client has left.
        self._connections.idle.add(self)
        is_ending = self._connections.terminated.is_set()
        patience_s = 0 if is_ending else self.config.keep_alive_timeout
        self._idle_until = self._reading.deadline = trio.current_time() + patience_s

    def become_busy(self) -> None:
        """A request is being answered: its client may be as silent as it likes."""
        self._connections.idle.discard(self)
        self._idle_until = self._reading.deadline = inf

    async def _read_data(self) -> None:
        wrapper = self.protocol
        if type(wrapper.protocol) is H11Protocol:
            # Hypercorn makes it in the middle of run(); nothing has been read yet.
            wrapper.protocol = _Http1(wrapper.protocol, self)
        try:
            while (data := await self._receive()) is not None:
                await wrapper.handle(RawData(data))
                if not data:
                    break
        finally:
            self._is_over = True
            self.become_busy()
        await wrapper.handle(Closed())

    async def _receive(self) -> bytes | None:
        """Return what came, or nothing at the end; `None` if it broke or was idle for too long."""
        with trio.CancelScope(deadline=self._idle_until) as self._reading:
            try:
                return bytes(await self.stream.receive_some(RECEIVE_BYTES))
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return None
        return None

    # Writing

    async def protocol_send(self, event: Event) -> None:
        """Write, close, or note that a request begins or has ended."""
        if isinstance(event, RawData):
            await self.write(event.data)
        elif not (self._is_over and isinstance(event, Updated)):
            await super().protocol_send(event)

    async def write(self, data: bytes) -> None:
        """Write all of *data*: what the socket takes at once, and the rest when it does."""
        if self.is_free:
            data = self._written_now(data) if data else data
            if not data:
                return
        async with self.send_lock:
            rest, self._rest = self._rest + data, b""
            try:
                # Half of a write is no use to anybody.
                with trio.CancelScope(shield=True):
                    await self.stream.send_all(rest)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self.protocol.handle(Closed())
            except trio.BusyResourceError:
                pass  # Another task is closing the connection this very moment.

    @property
    def is_free(self) -> bool:
        """Nothing waits to be written."""
        return self._is_plain and not self._rest and not self.send_lock.locked()

    def write_soon(self, data: bytes) -> None:
        """Write *data*, when it is free. Never waits; what the socket does not take is kept."""
        if rest := self._written_now(data):
            self._rest = rest
            self._task_group.spawn(self.write, b"")

    def _written_now(self, data: bytes) -> bytes:
        """Return what the socket does not take now. What fails is left to the waiting way."""
        try:
            n_written = os.write(self._fileno(), data)
        except OSError:
            return data
        return data[n_written:]


class _Http1(H11Protocol):
    """HTTP/1.1 whose head goes out with the first piece, and whose pieces cost one write."""

    def __init__(self, made: H11Protocol, connection: Connection) -> None:
        super().__init__(
            made.app,
            made.config,
            made.context,
            made.task_group,
            made.connection_state,
            made.ssl,
            made.client,
            made.server,
            made.send,
        )
        self.socket = connection
        self._head = b""
        self._may_have_body = True
        self._has_chunks = False

    @property
    def is_in_chunks(self) -> bool:
        """Pieces of the body are chunks, one after another; h11 keeps no account of them."""
        return self._has_chunks and self.connection.our_state is h11.SEND_BODY

    @property
    def is_free(self) -> bool:
        """In the middle of a body, a chunk may be written and nothing is waiting before it."""
        return self._has_chunks and not self._head and self.socket.is_free

    async def send_chunk(self, data: bytes) -> None:
        """Send a piece of a chunked body as h11 would. Not a checkpoint if the socket takes it."""
        if data:  # An empty chunk is the end.
            await self._send_bytes(b"%x\r\n%b\r\n" % (len(data), data))

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of an answer."""
        if isinstance(event, StreamClosed):
            await self._send_bytes(b"")  # It may have failed between its head and its body.
        await super().stream_send(event)

    async def _send_h11_event(self, event: Any) -> None:
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
            self._has_chunks = self._may_have_body and _CHUNKED in data.lower()
        else:
            await self._send_bytes(data)

    async def _send_bytes(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if head or data:
            await self.socket.write(head + data)

    async def _create_stream(self, request: h11.Request) -> None:
        self._may_have_body = request.method != b"HEAD"
        if any(name == b"upgrade" for name, _ in request.headers):
            await super()._create_stream(request)
            return
        self.stream = _Exchange(self)
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()


class _Exchange(HTTPStream):
    """One request and its answer. Offers the application to write pieces without waiting."""

    def __init__(self, http1: _Http1) -> None:
        super().__init__(
            self._run,  # type: ignore[arg-type] # an application, less narrowly typed
            http1.config,
            http1.context,
            http1.task_group,
            http1.ssl,
            http1.client,
            http1.server,
            http1.stream_send,
            STREAM_ID,
        )
        self._http1 = http1
        self._write_soon = http1.socket.write_soon

    async def _run(self, scope: Any, receive: Any, send: Any, *threads: Any) -> None:
        scope["extensions"][PIECES_KEY] = self
        await self._http1.app(scope, receive, send, *threads)

    @property
    def is_free(self) -> bool:
        """A piece of the body may be written now."""
        return self.state is ASGIHTTPState.RESPONSE and not self.closed and self._http1.is_free

    def write(self, piece: bytes) -> None:
        """Write a piece without waiting, when it is free."""
        if piece:
            self._write_soon(b"%x\r\n%b\r\n" % (len(piece), piece))

    async def app_send(self, message: Any) -> None:
        """Take a message from the application."""
        if (
            message is not None
            and message["type"] == "http.response.body"
            and message.get("more_body", False)
            and self.state is ASGIHTTPState.RESPONSE
            and not self.closed
            and self._http1.is_in_chunks
        ):
            await self._http1.send_chunk(message.get("body", b""))
        else:
            await super().app_send(message)

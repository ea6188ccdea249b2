"""A real server on a real socket: framing, back-pressure, and how connections end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from ollamad.http import server
from ollamad.http.scope import PIECES_KEY, AsgiApp, Message, PieceWriter, Receive, Scope, Send
from ollamad.http.server import open_listener, serve_http

pytestmark = pytest.mark.process

WITHIN_S: Final = 20
BIG: Final = b"x" * (1 << 20)
N_BIG: Final = 40
"""Far more than the buffers of a connection hold."""


class Pieces:
    """An application that answers with pieces, by path, and notes what becomes of it."""

    def __init__(self) -> None:
        self.n_big = 0
        self.left = trio.Event()
        self.go_on = trio.Event()
        self.stuck = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        headers = [(b"content-length", b"6")] if scope["path"] == "/length" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        match scope["path"]:
            case "/endless":
                await self._send(send, b"first")
                assert (await receive())["type"] == "http.disconnect"
                self.left.set()
                return
            case "/big":
                for _ in range(N_BIG):
                    await self._send(send, BIG)
                    self.n_big += 1
            case "/breaks":
                raise RuntimeError("between the head and the body")
            case "/written":
                await self._write(scope, send)
            case "/waits":
                await self._send(send, b"first")
                await self.go_on.wait()
            case _:
                for piece in (b"one", b"", b"two"):
                    await self._send(send, piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, scope: Scope, send: Send) -> None:
        """Write pieces without waiting for as long as they are taken, then one that waits."""
        writer: PieceWriter = scope["extensions"][PIECES_KEY]
        assert not writer.is_free  # The head has not gone out.
        await self._send(send, b"first")
        writer.write(b"")
        while writer.is_free:
            writer.write(BIG)
            self.n_big += 1
        self.stuck.set()
        await self._send(send, b"last")

    async def _send(self, send: Send, piece: bytes) -> None:
        message: Message = {"type": "http.response.body", "body": piece, "more_body": True}
        await send(message)


class Site:
    """A server for the block."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.shutdown = trio.Event()
        self.is_over = trio.Event()

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@contextlib.asynccontextmanager
async def a_site(app: AsgiApp) -> AsyncIterator[Site]:
    listener = open_listener("127.0.0.1", 0)
    site = Site(listener.getsockname()[1])

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        await serve_http(
            app,
            listener,
            shutdown=site.shutdown.wait,
            drain_timeout_s=WITHIN_S,
            task_status=task_status,
        )
        site.is_over.set()

    with trio.fail_after(WITHIN_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            yield site
            nursery.cancel_scope.cancel()


def a_get(path: str = "/", *, method: str = "GET", version: str = "1.1", more: str = "") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nhost: localhost\r\n{more}\r\n".encode()


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        received = await stream.receive_some()
        assert received, data
        data += received
    return data


async def read_all(stream: trio.SocketStream) -> bytes:
    return b"".join([data async for data in stream])


CHUNKS: Final = b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_pieces_are_chunks_and_an_empty_one_is_not_the_end() -> None:
    async with a_site(Pieces()) as site, await site.connect() as stream:
        await stream.send_all(a_get())
        head, _, body = (await read_until(stream, b"0\r\n\r\n")).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\ntransfer-encoding: chunked" in head.lower()
    assert body == CHUNKS


async def test_a_connection_is_used_again_and_requests_may_come_all_at_once() -> None:
    async with a_site(Pieces()) as site, await site.connect() as stream:
        for n_at_once in (1, 1, 3):
            await stream.send_all(a_get() * n_at_once)
            data = b""
            while data.count(CHUNKS) < n_at_once:
                data += await stream.receive_some()
            assert data.count(b"HTTP/1.1 200 ") == n_at_once


async def test_a_known_length_is_kept_to() -> None:
    async with a_site(Pieces()) as site, await site.connect() as stream:
        await stream.send_all(a_get("/length"))
        data = await read_until(stream, b"\r\n\r\nonetwo")
        await stream.send_all(a_get())
        await read_until(stream, CHUNKS)

    assert b"chunked" not in data.lower()


async def test_an_old_client_gets_plain_bytes_and_the_end_of_the_connection() -> None:
    async with a_site(Pieces()) as site, await site.connect() as stream:
        await stream.send_all(a_get(version="1.0"))
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")

    assert b"chunked" not in head.lower()
    assert body == b"onetwo"


async def test_a_client_that_asks_for_the_end_of_the_connection_gets_it() -> None:
    async with a_site(Pieces()) as site, await site.connect() as stream:
        await stream.send_all(a_get(more="connection: close\r\n"))

        assert (await read_all(stream)).endswith(CHUNKS)


async def test_head_has_no_body_and_leaves_the_connection_usable() -> None:
    async with a_site(Pieces()) as site, await site.connect() as stream:
        await stream.send_all(a_get(method="HEAD"))
        head = await read_until(stream, b"\r\n\r\n")
        await stream.send_all(a_get())
        data = await read_until(stream, b"0\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert data.startswith(b"HTTP/1.1 200 ")
    assert data.count(b"one") == 1


async def test_a_slow_client_is_waited_for_alone_and_misses_nothing() -> None:
    app = Pieces()
    async with a_site(app) as site, await site.connect() as slow:
        await slow.send_all(a_get("/big", more="connection: close\r\n"))
        # The others are served while it reads nothing, and its answer gets stuck at some piece.
        n_big = -1
        while n_big != app.n_big:
            n_big = app.n_big
            for _ in range(20):
                async with await site.connect() as quick:
                    await quick.send_all(a_get("/length", more="connection: close\r\n"))
                    assert (await read_all(quick)).endswith(b"onetwo")
        assert n_big < N_BIG
        _, _, body = (await read_all(slow)).partition(b"\r\n\r\n")

    assert body == b"100000\r\n%b\r\n" % BIG * N_BIG + b"0\r\n\r\n"


async def test_pieces_written_without_waiting_keep_their_place_and_none_is_lost() -> None:
    app = Pieces()
    async with a_site(app) as site, await site.connect() as slow:
        await slow.send_all(a_get("/written", more="connection: close\r\n"))
        await app.stuck.wait()
        assert app.n_big < N_BIG  # At most one piece waits here; the rest is the kernel's.
        _, _, body = (await read_all(slow)).partition(b"\r\n\r\n")

    big = b"100000\r\n%b\r\n" % BIG * app.n_big
    assert body == b"5\r\nfirst\r\n" + big + b"4\r\nlast\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes", [a_get("/never-free", version="1.0"), a_get("/never-free", method="HEAD")]
)
async def test_where_pieces_are_no_chunks_none_is_taken_without_waiting(
    request_bytes: bytes,
) -> None:
    were_free: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        were_free.append(scope["extensions"][PIECES_KEY].is_free)
        await send({"type": "http.response.body", "body": b""})

    async with a_site(app) as site, await site.connect() as stream:
        await stream.send_all(request_bytes)
        await read_until(stream, b"\r\n\r\n" if b"HEAD" in request_bytes else b"one")

    assert were_free == [False]


async def test_a_piece_written_to_a_client_that_has_left_ends_its_answer() -> None:
    app = Pieces()
    async with a_site(app) as site:
        async with await site.connect() as stream:
            await stream.send_all(a_get("/written"))
            await app.stuck.wait()
        site.shutdown.set()
        await site.is_over.wait()


async def test_an_application_is_told_at_once_that_its_client_has_left() -> None:
    app = Pieces()
    async with a_site(app) as site:
        async with await site.connect() as stream:
            await stream.send_all(a_get("/endless"))
            await read_until(stream, b"5\r\nfirst\r\n")
        await app.left.wait()


async def test_a_client_that_leaves_in_the_middle_of_a_piece_ends_its_answer() -> None:
    app = Pieces()
    async with a_site(app) as site:
        async with await site.connect() as stream:
            await stream.send_all(a_get("/big"))
            await stream.receive_some()
        async with await site.connect() as stream:
            await stream.send_all(a_get())
            await read_until(stream, CHUNKS)
        site.shutdown.set()
        await site.is_over.wait()


async def test_an_answer_that_breaks_after_its_head_shows_the_head_and_no_end() -> None:
    async with a_site(Pieces()) as site, await site.connect() as stream:
        await stream.send_all(a_get("/breaks"))
        data = await read_all(stream)

    assert data.startswith(b"HTTP/1.1 200 ")
    assert data.endswith(b"\r\n\r\n")
    assert not data.endswith(b"0\r\n\r\n")


async def test_a_connection_without_a_request_ends_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "IDLE_CONNECTION_S", 0.01)
    app = Pieces()
    async with a_site(app) as site:
        async with await site.connect() as never_asks:
            assert await read_all(never_asks) == b""
        async with await site.connect() as asks_once:
            await asks_once.send_all(a_get())
            assert (await read_all(asks_once)).endswith(CHUNKS)


async def test_the_end_of_the_server_closes_idle_connections_and_lets_answers_end() -> None:
    app = Pieces()
    async with a_site(app) as site:
        async with (
            await site.connect() as new,
            await site.connect() as used,
            await site.connect() as busy,
        ):
            await used.send_all(a_get())
            await read_until(used, CHUNKS)
            await busy.send_all(a_get("/waits"))
            await read_until(busy, b"5\r\nfirst\r\n")

            site.shutdown.set()

            assert await read_all(new) == b""
            assert await read_all(used) == b""
            assert not site.is_over.is_set()
            app.go_on.set()
            assert await read_all(busy) == b"0\r\n\r\n"
            await site.is_over.wait()


async def test_http_2_without_tls_is_still_understood() -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    headers = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "localhost")]
    client.send_headers(1, headers, end_stream=True)
    events: list[Any] = []
    async with a_site(Pieces()) as site, await site.connect() as stream:
        await stream.send_all(client.data_to_send())
        while not any(isinstance(event, h2.events.StreamEnded) for event in events):
            events += client.receive_data(await stream.receive_some())

    body = b"".join(event.data for event in events if isinstance(event, h2.events.DataReceived))
    assert body == b"onetwo"

"""Bodies keep to their limits, and what a request holds is given back however it ends."""

from __future__ import annotations

import contextlib

import pytest
import trio

from ollamad.http.scope import STACK_KEY, BodyLimit, Message, Receive, RequestScope, Scope, Send
from tests.unit.http.asgi import DISCONNECT, Exchange, a_scope, ask, body_of, ok, reading

LIMIT = 10


def limited(read: list[bytes]) -> BodyLimit:
    return BodyLimit(
        reading(read),
        limits={"/small": 4},
        unlimited_prefix="/blobs/",
        default_bytes=LIMIT,
        refusal=lambda path, limit_bytes: f"{path} takes {limit_bytes}".encode(),
    )


def a_post(path: str = "/chat", **headers: str) -> Scope:
    return a_scope(method="POST", path=path, **headers)


async def test_a_body_of_exactly_the_limit_passes() -> None:
    for headers in ({}, {"content_length": "10"}):
        read: list[bytes] = []
        answer = await ask(limited(read), a_post(**headers), body_of(b"12345", b"67890"))

        assert (answer.status, b"".join(read)) == (200, b"1234567890")


@pytest.mark.parametrize("length", ["11", "0000011", "9" * 30, "9" * 5000])
async def test_an_announced_body_over_the_limit_is_refused_unread(length: str) -> None:
    answer = await ask(limited([]), a_post(content_length=length), body_of(b"12345678901"))

    assert (answer.status, answer.body, answer.n_received) == (413, b"/chat takes 10", 0)
    assert answer.headers == {
        "content-type": "application/json; charset=utf-8",
        "content-length": "14",
        "connection": "close",
    }


async def test_a_body_without_a_length_is_cut_off_at_the_limit() -> None:
    read: list[bytes] = []
    pieces = body_of(b"123456", b"78901", b"never read")

    answer = await ask(limited(read), a_post(), pieces)

    assert (answer.status, answer.body) == (413, b"/chat takes 10")
    assert (read, answer.n_received) == ([b"123456"], 2)


async def test_a_body_longer_than_it_was_announced_is_cut_off_too() -> None:
    answer = await ask(limited([]), a_post(content_length="3"), body_of(b"123456", b"78901"))

    assert answer.status == 413


async def test_a_length_that_is_no_number_announces_nothing() -> None:
    for length in ("", "-1", "ten", "1e9"):
        answer = await ask(limited([]), a_post(content_length=length), body_of(b"12"))

        assert answer.status == 200


async def test_a_path_has_its_own_limit() -> None:
    fits = await ask(limited([]), a_post("/small"), body_of(b"1234"))
    too_large = await ask(limited([]), a_post("/small"), body_of(b"12345"))

    assert (fits.status, too_large.status) == (200, 413)
    assert too_large.body == b"/small takes 4"


async def test_a_body_that_is_streamed_to_disk_has_no_limit_here() -> None:
    read: list[bytes] = []
    scope = a_post("/blobs/sha256:0", content_length="1000")

    answer = await ask(limited(read), scope, body_of(b"x" * 500, b"x" * 500))

    assert (answer.status, len(b"".join(read))) == (200, 1000)


async def test_a_client_that_leaves_is_not_told_that_its_body_is_too_large() -> None:
    first, *_ = body_of(b"123", b"456")

    answer = await ask(limited([]), a_post(), [first, DISCONNECT])

    assert answer.sent == []


async def test_an_answer_given_before_the_body_was_read_stays_the_answer() -> None:
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)
        while (await receive())["type"] != "http.disconnect":
            pass

    app = BodyLimit(
        hasty, limits={}, unlimited_prefix="/blobs/", default_bytes=LIMIT, refusal=lambda *_: b""
    )
    answer = await ask(app, a_post(), body_of(b"123456", b"78901"))

    assert [message["type"] for message in answer.sent] == [
        "http.response.start",
        "http.response.body",
    ]
    assert answer.status == 200


async def test_a_refusal_is_sent_whole_also_when_the_request_is_cancelled() -> None:
    exchange = Exchange(a_post(content_length="11"))
    app = limited([])

    with trio.CancelScope() as cancelled:
        cancelled.cancel()
        await app(exchange.scope, exchange.receive, exchange.send)

    assert (exchange.status, exchange.body) == (413, b"/chat takes 10")


async def test_what_is_no_request_has_no_body_to_limit() -> None:
    scopes: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope["type"])

    wrapped = BodyLimit(
        app, limits={}, unlimited_prefix="/blobs/", default_bytes=0, refusal=lambda *_: b""
    )
    await ask(wrapped, {"type": "lifespan"})
    await ask(RequestScope(app), {"type": "lifespan"})

    assert scopes == ["lifespan", "lifespan"]


# The request's exit stack


class Held:
    """An application that holds something until its request ends."""

    def __init__(self) -> None:
        self.given_back = 0
        self.started = trio.Event()

    def take(self, scope: Scope) -> None:
        stack: contextlib.ExitStack = scope[STACK_KEY]
        stack.callback(self._give_back)
        self.started.set()

    def _give_back(self) -> None:
        self.given_back += 1


async def test_what_a_request_holds_is_given_back_after_its_answer() -> None:
    held = Held()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        held.take(scope)
        await ok(scope, receive, send)
        assert held.given_back == 0

    answer = await ask(RequestScope(app), a_scope())

    assert (answer.body, held.given_back) == (b"fine", 1)


async def test_what_a_request_holds_is_given_back_when_its_handler_fails() -> None:
    held = Held()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        held.take(scope)
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await ask(RequestScope(app), a_scope())

    assert held.given_back == 1


async def test_what_a_request_holds_is_given_back_when_it_is_cancelled() -> None:
    held = Held()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        held.take(scope)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, RequestScope(app), a_scope())
        await held.started.wait()
        nursery.cancel_scope.cancel()

    assert held.given_back == 1


async def test_the_last_write_is_finished_although_the_request_is_cancelled() -> None:
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message.get("body", b""))

    async def receive() -> Message:
        return DISCONNECT

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await send({"type": "http.response.body", "body": b"last", "more_body": False})
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await send({"type": "http.response.body", "body": b"more", "more_body": True})

    await RequestScope(app)(a_scope(), receive, send)

    assert sent == [b"last"]

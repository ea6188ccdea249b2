"""An answer that is ready early waits for the rest of its request, and not for nothing."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from ollamad.http.linger import LINGER_S, Linger
from ollamad.http.scope import Receive, Scope, Send
from tests.unit.http.asgi import DISCONNECT, Exchange, a_scope, ask, body_of, ok


async def test_the_rest_of_a_body_is_read_before_the_last_write() -> None:
    pieces = body_of(b"one", b"two", b"three")

    answer = await ask(Linger(ok), a_scope(method="POST"), pieces)

    assert (answer.body, answer.n_received) == (b"fine", 3)


async def test_a_client_that_never_ends_its_body_is_cut_off(autojump_clock: MockClock) -> None:
    started = trio.current_time()

    answer = await ask(Linger(ok), a_scope(method="POST"), body_of(b"one", b"two")[:1])

    assert answer.body == b"fine"
    assert trio.current_time() - started == LINGER_S


async def test_an_application_that_still_reads_is_no_reason_to_wait(
    autojump_clock: MockClock,
) -> None:
    """Quart reads in one task and answers in another: who gets the end must tell the other."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def read() -> None:
            while await receive() != DISCONNECT:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(exchange.bring, body_of(b"")[0])
            await ok(scope, receive, send)
            nursery.cancel_scope.cancel()

    exchange = _Slow(a_scope())
    started = trio.current_time()
    await Linger(app)(exchange.scope, exchange.receive, exchange.send)

    assert exchange.body == b"fine"
    assert trio.current_time() == started


class _Slow(Exchange):
    """A client whose request comes in only when it is brought."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self._bring, self._brought = trio.open_memory_channel[dict[str, object]](1)

    async def bring(self, message: object) -> None:
        await self._bring.send(message)  # type: ignore[arg-type]

    async def receive(self) -> dict[str, object]:
        return await self._brought.receive()

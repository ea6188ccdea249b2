"""Messages to the daemon from the engine's thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import trio

from ollamad.runners.channel import Channel
from ollamad.runners.protocol import FromRunner, LoadProgress, Tokenized, ToRunner
from ollamad.runners.worker.outbox import Outbox

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Sockets]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def a_big(number: int) -> Tokenized:
    return Tokenized(number, tuple(range(50_000)))


async def test_messages_of_other_threads_arrive_whole_and_in_order(ends: Sockets) -> None:
    ours, theirs = ends
    outbox = Outbox(ours)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    channel: Channel[FromRunner, ToRunner] = Channel(stream, FromRunner)

    def send_many() -> None:
        for number in range(20):
            outbox.send([LoadProgress(number / 20), a_big(number)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.flush)
        threading.Thread(target=send_many).start()
        for number in range(20):
            assert await channel.receive() == LoadProgress(number / 20)
            assert await channel.receive() == a_big(number)
        nursery.cancel_scope.cancel()


async def test_sending_never_waits_for_a_daemon_that_does_not_read(ends: Sockets) -> None:
    outbox = Outbox(ends[0])

    for number in range(50):  # Far more than a socket buffers.
        outbox.send([a_big(number)])

    ends[1].settimeout(5)
    assert ends[1].recv(1 << 20)


async def test_sending_to_a_daemon_that_is_gone_is_no_error(ends: Sockets) -> None:
    outbox = Outbox(ends[0])
    ends[1].close()

    outbox.send([a_big(1)])
    outbox.send([a_big(2)])
    outbox.drain(patience_s=5)


async def test_the_last_words_are_out_before_a_runner_ends(ends: Sockets) -> None:
    ours, theirs = ends
    outbox = Outbox(ours)
    received = bytearray()

    def read() -> None:
        while data := theirs.recv(1 << 16):
            received.extend(data)

    outbox.send([a_big(1)])
    reader = threading.Thread(target=read)
    reader.start()
    await trio.to_thread.run_sync(outbox.drain, 5)
    ours.shutdown(socket.SHUT_WR)
    reader.join(5)

    (length,) = (int.from_bytes(received[:4], "big"),)
    assert len(received) == 4 + length

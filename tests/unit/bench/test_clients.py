"""The load is run against a small server of this process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from bench.peers import clients
from bench.peers.clients import LoadFailed
from bench.peers.wire import request_bytes
from tools.address import Address

REQUEST = request_bytes("GET", "/x")


def answer(connection: socket.socket, status: bytes) -> None:
    # A client that hangs up in the middle resets the connection.
    with connection, contextlib.suppress(ConnectionError):
        while connection.recv(65536):
            connection.sendall(
                b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na\nb\nc\r\n"
            )
            connection.sendall(b"1\r\nd\r\n0\r\n\r\n")
            if b"close" in status:
                return


@pytest.fixture(params=[b"200 OK"])
def server(request: pytest.FixtureRequest) -> Iterator[Address]:
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection, request.param), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield Address(*listening.getsockname())
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def test_every_line_has_the_time_of_its_arrival(server: Address) -> None:
    answers = clients.together(server, [REQUEST] * 3)

    for each in answers:
        assert each.lines == [b"a", b"b", b"cd"]
        assert each.started_s <= each.times_s[0] <= each.times_s[-1] <= each.finished_s


def test_one_connection_carries_many_requests(server: Address) -> None:
    assert [each.status for each in clients.one_by_one(server, [REQUEST] * 5)] == [200] * 5


@pytest.mark.parametrize("server", [b"200 OK\r\nConnection: close"], indirect=True)
def test_a_server_that_closes_after_each_answer_is_asked_anew(server: Address) -> None:
    assert len(clients.one_by_one(server, [REQUEST] * 3)) == 3
    assert clients.hammer(server, REQUEST, n_connections=2, duration_s=0.05) > 0


def test_a_hammer_counts_answers(server: Address) -> None:
    assert clients.hammer(server, REQUEST, n_connections=2, duration_s=0.05) > 0


@pytest.mark.parametrize("server", [b"501 Not Implemented"], indirect=True)
def test_a_refusal_ends_the_load_with_its_words(server: Address) -> None:
    with pytest.raises(LoadFailed, match="501: a b cd"):
        clients.one_by_one(server, [REQUEST])

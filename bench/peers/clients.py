"""The load: many requests from one thread, with the moment at which each line arrived.

Owns the sockets and the clock. Nothing is decoded while requests run: the client shares the
processor with the servers, and what it spends there is missing in what it measures.
"""

from __future__ import annotations

import dataclasses
import selectors
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from bench.peers.wire import ResponseReader
from tools.address import Address

READ_BYTES: Final = 1 << 18
PATIENCE_S: Final = 300.0
"""How long nothing at all may arrive before a run is given up."""


class LoadFailed(Exception):
    """A request of the load went wrong; the figures of its run are worth nothing."""


@dataclasses.dataclass(slots=True)
class Answer:
    """One response: when it was asked for, each of its lines, and when that line was there."""

    started_s: float
    status: int = 0
    lines: list[bytes] = dataclasses.field(default_factory=list)
    times_s: list[float] = dataclasses.field(default_factory=list)
    finished_s: float = 0.0


class Connection:
    """A socket that carries one request after another, while the server lets it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket = socket.create_connection((address.host, address.port), timeout=PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self.answer = Answer(0.0)
        self._reader = ResponseReader()

    def fileno(self) -> int:
        """Return the descriptor, as selectors ask for it."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @property
    def closes(self) -> bool:
        """Whether the server takes no further request here."""
        return self._reader.closes

    def next(self) -> Connection:
        """Return what carries the next request: this connection, or a new one in its place.

        llama-server closes after a hundred answers, and says so in the last.
        """
        if not self.closes:
            return self
        self.close()
        return Connection(self._address)

    def ask(self, request: bytes) -> None:
        """Send *request*; its answer comes through `receive`."""
        self._rest, self._reader = b"", ResponseReader()
        self.answer = Answer(time.perf_counter())
        self._socket.sendall(request)

    def receive(self) -> bool:
        """Take what has arrived; return whether the answer is complete."""
        data = self._socket.recv(READ_BYTES)
        now = time.perf_counter()
        answer, reader = self.answer, self._reader
        if data:
            *lines, self._rest = (self._rest + reader.feed(data)).split(b"\n")
        else:
            reader.closed()
            lines = []
        if reader.is_done and self._rest:
            lines.append(self._rest)
        for line in lines:
            if line.strip():
                answer.lines.append(line)
                answer.times_s.append(now)
        if reader.is_done:
            answer.status, answer.finished_s = reader.status, now
            if reader.status != 200:
                said = b" ".join(answer.lines)[:300].decode(errors="replace")
                raise LoadFailed(f"HTTP status {reader.status}: {said}")
        return reader.is_done


class Load:
    """Requests that run at the same time. Use as a context manager: leaving it hangs up."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._selector = selectors.DefaultSelector()
        self._connections: list[Connection] = []
        self.n_running = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._selector.close()
        for connection in self._connections:
            connection.close()

    def ask(self, request: bytes) -> Answer:
        """Send *request* on a connection of its own; return the answer that will fill."""
        connection = Connection(self._address)
        self._connections.append(connection)
        self._selector.register(connection, selectors.EVENT_READ)
        connection.ask(request)
        self.n_running += 1
        return connection.answer

    def step(self) -> None:
        """Wait until something arrives, and take it. Raises LoadFailed."""
        ready = self._selector.select(PATIENCE_S)
        if not ready:
            raise LoadFailed(f"nothing arrived for {PATIENCE_S:.0f} s")
        for key, _ in ready:
            connection = key.fileobj
            if isinstance(connection, Connection) and connection.receive():
                self._selector.unregister(connection)
                self.n_running -= 1

    def finish(self) -> None:
        """Run until every answer is complete."""
        while self.n_running:
            self.step()


def together(address: Address, requests: Sequence[bytes]) -> list[Answer]:
    """Send all *requests* at once and return their answers."""
    with Load(address) as load:
        answers = [load.ask(request) for request in requests]
        load.finish()
    return answers


def one_by_one(address: Address, requests: Sequence[bytes]) -> list[Answer]:
    """Send *requests* one after another on one connection and return their answers."""
    connection = Connection(address)
    answers: list[Answer] = []
    try:
        for request in requests:
            connection = connection.next()
            connection.ask(request)
            while not connection.receive():
                pass
            answers.append(connection.answer)
    finally:
        connection.close()
    return answers


def hammer(address: Address, request: bytes, *, n_connections: int, duration_s: float) -> float:
    """Repeat *request* on kept connections; return the answers per second."""
    connections = {Connection(address) for _ in range(n_connections)}
    n_answers = 0
    try:
        with selectors.DefaultSelector() as selector:
            for connection in connections:
                selector.register(connection, selectors.EVENT_READ)
                connection.ask(request)
            started = now = time.perf_counter()
            while now - started < duration_s:
                for key, _ in selector.select(PATIENCE_S):
                    connection = key.fileobj  # type: ignore[assignment]  # What we registered.
                    if not connection.receive():
                        continue
                    n_answers += 1
                    if connection.closes:
                        selector.unregister(connection)
                        connections.remove(connection)
                        connection = connection.next()
                        connections.add(connection)
                        selector.register(connection, selectors.EVENT_READ)
                    connection.ask(request)
                now = time.perf_counter()
    finally:
        for connection in connections:
            connection.close()
    return n_answers / (now - started)

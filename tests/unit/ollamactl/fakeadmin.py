"""Admin sockets for tests of `ollamactl`: the real door on a fake supervisor, or mere bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import trio

from ollamad.admin.peers import PeerReader
from ollamad.supervisor.commands import Note
from tests.wire.adminsite import Desk, FakePeers, a_door

STARTS_WITHIN_S = 30


class RunningDoor:
    """A door that is served in a thread of its own."""

    def __init__(self, path: Path, peers: PeerReader) -> None:
        self.path = path
        self.desk: Desk | None = None
        self._peers = peers
        self._started = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._thread = threading.Thread(target=lambda: trio.run(self._main))

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        self.desk = Desk()
        async with a_door(self.desk, self.path, self._peers):
            self._started.set()
            await self._stop.wait()

    def __enter__(self) -> RunningDoor:
        self._thread.start()
        assert self._started.wait(STARTS_WITHIN_S)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stop is not None
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join(STARTS_WITHIN_S)

    @property
    def told(self) -> list[tuple[object, ...]]:
        """What the supervisor was told to do."""
        assert self.desk is not None
        return self.desk.steering.told

    def publish_when_heard(self, *notes: Note) -> None:
        """Publish *notes* once somebody listens; return when they are on their way."""
        assert self.desk is not None
        desk = self.desk

        async def publish() -> None:
            while not desk.bulletin.n_subscribers:
                await trio.lowlevel.checkpoint()
            for note in notes:
                desk.bulletin.publish(note)
            while any(reader._entries for reader in desk.bulletin._subscriptions):
                await trio.lowlevel.checkpoint()
            for _ in range(3):  # From the last one's reader to the socket.
                await trio.lowlevel.checkpoint()

        trio.from_thread.run(publish, trio_token=self._token)


def a_running_door(path: Path, peers: PeerReader | None = None) -> RunningDoor:
    """Return a door to be used as a context manager."""
    return RunningDoor(path, peers or FakePeers())


@contextlib.contextmanager
def a_socket_that_says(path: Path, answer: bytes) -> Iterator[None]:
    """Accept one connection, answer its first words with *answer*, and hang up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            # Whoever was not connected to is woken up.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as waker:
                waker.connect(str(path))
                waker.sendall(b"x")
            thread.join(STARTS_WITHIN_S)

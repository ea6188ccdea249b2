"""The admin door on fakes: one connection over memory, in virtual time, or the door on a socket."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio
import trio.testing

from ollamad.admin.connection import Connection
from ollamad.admin.door import AdminDoor
from ollamad.admin.listener import own_listener
from ollamad.admin.methods import Methods
from ollamad.admin.peers import Peer, PeerReader, Rules
from ollamad.admin.steering import Surroundings
from ollamad.adminwire import Feature, Reloaded, Sensors
from ollamad.errors import ConfigError
from ollamad.supervisor.bulletin import Bulletin
from tests.fakes.steering import GPU, FakeModels, FakeSteering
from tests.scenario.house import GEMMA, LLAMA, QWEN
from tests.wire.site import FixedClock

LOOK, CHANGE = 2001, 2002
RULES = Rules(
    own_uid=1000, look_group="ollama", look_gid=LOOK, change_group="ollama-admin", change_gid=CHANGE
)
ADMIN = Peer(pid=42, uid=1002, groups=frozenset({CHANGE}))
READER = Peer(pid=43, uid=1001, groups=frozenset({LOOK}))
STRANGER = Peer(pid=44, uid=1003, groups=frozenset({100}))

Message = dict[str, Any]
"""A decoded message. Any: tests compare it as it is."""


@dataclasses.dataclass
class FakePeers(PeerReader):
    """Says that everybody is *peer*."""

    peer: Peer = ADMIN

    async def read(self, connection: trio.socket.SocketType) -> Peer:
        await trio.lowlevel.checkpoint()
        return self.peer


class Desk:
    """What an admin door stands on."""

    def __init__(self) -> None:
        self.steering = FakeSteering()
        self.bulletin = Bulletin(FixedClock())
        self.reload_fails = ""
        self.around = Surroundings(
            listen="127.0.0.1:11434",
            store="/models",
            config_file=None,
            reload=self._reload,
            features=lambda: (Feature(name="landlock", is_on=False, why="the kernel is too old"),),
            sensors=lambda: {GPU: Sensors(utilisation=0.5, temperature_c=61.0, power_w=150.0)},
            gpus=lambda: "NVML 12",
        )
        self.methods = Methods(self.steering, FakeModels(LLAMA, QWEN, GEMMA), self.around, 4711)

    def _reload(self) -> Reloaded:
        if self.reload_fails:
            raise ConfigError(self.reload_fails)
        return Reloaded(changed=("log.level",), needs_restart=("http.port",))


class Line:
    """The peer's end of a connection over memory."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._rest = b""

    async def send(self, *calls: Message | bytes) -> None:
        for call in calls:
            data = call if isinstance(call, bytes) else json.dumps(call).encode() + b"\0"
            await self.stream.send_all(data)

    async def receive(self) -> Message | None:
        """Return the next reply; `None` when the door has closed."""
        while b"\0" not in self._rest:
            data = await self.stream.receive_some(65536)
            if not data:
                return None
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        decoded: Message = json.loads(message)
        return decoded

    async def ask(self, method: str, _: None = None, /, **parameters: Any) -> Message | None:
        """Call a method of the interface and return its reply."""
        name = method if "." in method else f"io.ollamad.Admin.{method}"
        await self.send({"method": name, "parameters": parameters})
        return await self.receive()


@contextlib.asynccontextmanager
async def a_line(desk: Desk, peer: Peer = ADMIN) -> AsyncIterator[Line]:
    """Serve one connection of *peer* for the block. It must be over when its peer hangs up."""
    ours, theirs = trio.testing.memory_stream_pair()
    connection = Connection(theirs, peer, RULES, desk.methods, desk.bulletin)

    async def serve() -> None:
        await connection.run()
        await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield Line(ours)
        await ours.aclose()


@contextlib.asynccontextmanager
async def a_door(
    desk: Desk, path: Path, peers: PeerReader | None = None
) -> AsyncIterator[AdminDoor]:
    """Serve the whole door at *path* for the block."""
    door = AdminDoor(desk.methods, desk.bulletin, RULES, peers or FakePeers())
    with own_listener(path, None) as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(door.serve, listener)
            yield door
            nursery.cancel_scope.cancel()


def a_client(path: Path) -> socket.socket:
    """Return a plain socket that is connected to the door."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client

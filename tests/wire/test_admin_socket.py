"""The admin door on a real socket, asked by the `varlink` package, a client nobody here wrote."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import varlink

from ollamad import __version__
from ollamad.admin.connection import DESCRIPTION
from ollamad.admin.door import CONNECTIONS_MAX, CONNECTIONS_OF_USER_MAX
from ollamad.admin.peers import Peer, PeerReader
from ollamad.adminwire import INTERFACE, METHODS
from ollamad.supervisor.commands import Note, NoteKind
from tests.wire.adminsite import (
    ADMIN,
    LOOK,
    READER,
    STRANGER,
    Desk,
    FakePeers,
    a_client,
    a_door,
)

Asks = Callable[[Any], Any]
"""What a test asks of the interface. Any: the package makes its methods at run time."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "admin.sock"


@contextmanager
def connected(path: Path) -> Iterator[Any]:
    with varlink.Client(f"unix:{path}") as client, client.open(INTERFACE) as admin:
        yield admin


async def asked(path: Path, ask: Asks) -> Any:
    """Run *ask* with the interface, in a thread: the package blocks."""

    def work() -> Any:
        with connected(path) as admin:
            return ask(admin)

    return await trio.to_thread.run_sync(work)


async def refused(path: Path, ask: Asks) -> tuple[str, dict[str, Any]]:
    """Return the error that *ask* is answered with."""

    def work() -> tuple[str, dict[str, Any]]:
        with connected(path) as admin, pytest.raises(varlink.VarlinkError) as caught:
            ask(admin)
        return caught.value.error(), caught.value.parameters()

    return await trio.to_thread.run_sync(work)


async def test_the_service_describes_itself(path: Path) -> None:
    def info() -> Any:
        with varlink.Client(f"unix:{path}") as client:
            names = client.get_interfaces()
            return client.info, {
                name: client.get_interface(name).get_description() for name in names
            }

    async with a_door(Desk(), path):
        about, descriptions = await trio.to_thread.run_sync(info)

    assert (about["product"], about["version"]) == ("ollamad", __version__)
    assert about["interfaces"] == ["org.varlink.service", INTERFACE]
    assert "method Events() -> (event: ?Event, missed: int)" in descriptions[INTERFACE]
    assert "error ExpectedMore ()" in descriptions["org.varlink.service"]


async def test_what_runs_is_told(path: Path) -> None:
    async with a_door(Desk(), path):
        status, gpus, runners, queue, explained = await asked(
            path,
            lambda admin: (
                admin.Status(),
                admin.Gpus(),
                admin.Runners(),
                admin.Queue(),
                admin.Explain(model="qwen:8b", options={"num_ctx": 1024}),
            ),
        )

    assert (status["version"], status["state"], status["may_change"]) == (
        __version__,
        "serving",
        True,
    )
    assert status["features"] == [
        {"name": "landlock", "is_on": False, "why": "the kernel is too old"}
    ]
    assert [device["device"] for device in gpus["devices"]] == ["host", "GPU-1234"]
    assert gpus["devices"][1]["sensors"]["temperature_c"] == 61.0
    assert runners["runners"][0]["engine"]["kv_used"] == 512
    assert queue["waiting"][0]["place"] == 1
    assert explained["demand"][0] == {"kind": "weights", "bytes": 4 << 30}


async def test_every_method_can_be_called(path: Path) -> None:
    desk, called = Desk(), set[str]()
    model: dict[str, object] = {"model": "llama:8b"}
    arguments: dict[str, dict[str, object]] = {
        "Explain": model,
        "Evict": {**model, "force": True},
        "Restart": model,
        "Reset": model,
        "Pin": model,
        "Unpin": model,
        "Preload": {**model, "options": {"num_ctx": 2048}},
        "SetLogLevel": {"level": "debug"},
    }

    def call_all(admin: Any) -> None:
        for name, spec in METHODS.items():
            if not spec.streams:
                getattr(admin, name)(**arguments.get(name, {}))
                called.add(name)

    async with a_door(desk, path):
        await asked(path, call_all)

    assert called == set(METHODS) - {"Events"}
    assert [order[0] for order in desk.steering.told] == [
        "explain", "evict", "restart", "reset", "pin", "pin", "preload", "drain", "resume",
    ]  # fmt: skip


async def test_events_are_streamed(path: Path) -> None:
    desk = Desk()
    seen: list[Any] = []

    def read(admin: Any) -> None:
        replies = admin.Events(_more=True)
        seen.append(next(replies))
        note = Note(NoteKind.READY, "llama:8b is ready", {"model": "llama:8b"})
        trio.from_thread.run_sync(desk.bulletin.publish, note)
        seen.append(next(replies))

    async with a_door(desk, path):
        await asked(path, read)

    assert seen[0] == {"missed": 0}
    assert (seen[1]["event"]["kind"], seen[1]["event"]["model"]) == ("ready", "llama:8b")


async def test_errors_are_the_interfaces_own(path: Path) -> None:
    async with a_door(Desk(), path):
        assert await refused(path, lambda admin: admin.Evict(model="nobody")) == (
            "io.ollamad.Admin.ModelNotFound",
            {"model": "nobody", "message": "model 'nobody' not found"},
        )
        assert await refused(path, lambda admin: admin.Evict(model="qwen:8b")) == (
            "io.ollamad.Admin.NotLoaded",
            {"model": "qwen:8b", "message": "model 'qwen:8b' is not loaded"},
        )
        name, _ = await refused(path, lambda admin: admin.SetLogLevel(level="loud"))
        assert name == "org.varlink.service.InvalidParameter"
        name, _ = await refused(path, lambda admin: admin.Events())
        assert name == "org.varlink.service.ExpectedMore"


async def test_a_oneway_call_is_carried_out_without_a_reply(path: Path) -> None:
    desk = Desk()
    async with a_door(desk, path):
        await asked(path, lambda admin: (admin.Drain(_oneway=True), admin.Queue()))

    assert desk.steering.told == [("drain",)]


async def test_a_reader_may_look_and_change_nothing(path: Path) -> None:
    async with a_door(Desk(), path, FakePeers(READER)):
        assert (await asked(path, lambda admin: admin.Status()))["may_change"] is False
        name, parameters = await refused(path, lambda admin: admin.Drain())

    assert name == "io.ollamad.Admin.PermissionDenied"
    assert parameters["group"] == "ollama-admin"


async def test_a_stranger_is_refused(path: Path) -> None:
    def ask() -> str:
        interface = varlink.Interface(DESCRIPTION)
        with a_client(path) as client:
            handler = varlink.SimpleClientInterfaceHandler(interface, client)
            with pytest.raises(varlink.VarlinkError) as error:
                handler.Status()
        return str(error.value.error())

    async with a_door(Desk(), path, FakePeers(STRANGER)):
        assert await trio.to_thread.run_sync(ask) == "io.ollamad.Admin.PermissionDenied"


async def test_we_ourselves_are_let_in_by_what_the_kernel_says(path: Path) -> None:
    """Tests run as root or as somebody: either is told apart by the real credentials."""
    is_root = os.geteuid() == 0
    async with a_door(Desk(), path, PeerReader()):
        if is_root:
            assert (await asked(path, lambda admin: admin.Status()))["may_change"] is True


class _Crowd(PeerReader):
    """Says that each connection is another user's."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 2000

    async def read(self, connection: trio.socket.SocketType) -> Peer:
        await trio.lowlevel.checkpoint()
        self._next += 1
        return Peer(pid=1, uid=self._next, groups=frozenset({LOOK}))


@pytest.mark.parametrize(
    ("peers", "most"), [(FakePeers(ADMIN), CONNECTIONS_OF_USER_MAX), (_Crowd(), CONNECTIONS_MAX)]
)
async def test_connections_beyond_the_limit_are_closed_and_there_is_room_again_later(
    path: Path, peers: PeerReader, most: int
) -> None:
    call = b'{"method":"io.ollamad.Admin.Queue"}\0'

    async def answers(client: Any) -> bool:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
        try:
            await stream.send_all(call)
            return bool(await stream.receive_some(65536))
        except trio.BrokenResourceError:
            return False

    async with a_door(Desk(), path, peers) as door:
        with ExitStack() as stack:
            clients = [stack.enter_context(a_client(path)) for _ in range(most)]
            assert [await answers(client) for client in clients] == [True] * most
            assert door.n_connections == most
            assert not await answers(stack.enter_context(a_client(path)))
            assert await answers(clients[0])
        while door.n_connections:
            await trio.lowlevel.checkpoint()
        with a_client(path) as client:
            assert await answers(client)

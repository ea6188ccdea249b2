"""`AdminDoor`: accepts connections on the admin socket, not more than there is room for."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Final

import trio

from ollamad.admin.connection import Connection
from ollamad.admin.listener import own_listener
from ollamad.admin.methods import Methods
from ollamad.admin.peers import Peer, PeerReader, Rules, read_rules
from ollamad.config import AdminConfig
from ollamad.inherited import inherited_listener
from ollamad.log import get_logger
from ollamad.supervisor.bulletin import Bulletin

CONNECTIONS_MAX: Final = 64
"""Connections at once. Each costs a task and at most some 1.3 MiB: a message that arrives, and
what was sent ahead of its turn."""
CONNECTIONS_OF_USER_MAX: Final = 16
"""Connections of one user at once, so that one cannot take all."""

LISTENER_NAME: Final = "admin"
"""The name under which a service manager passes the socket."""

log = get_logger(__name__)


async def serve_admin(
    methods: Methods,
    bulletin: Bulletin,
    config: AdminConfig,
    environ: Mapping[str, str],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Open the admin socket, or take the one that was passed to us, and serve until cancelled.

    Raises StartupError.
    """
    rules = await trio.to_thread.run_sync(read_rules, config.look_group, config.change_group)
    door = AdminDoor(methods, bulletin, rules)
    with contextlib.ExitStack() as stack:
        listener = inherited_listener(LISTENER_NAME, environ)
        if listener is not None:
            stack.enter_context(listener)
        else:
            listener = stack.enter_context(own_listener(config.socket_path, rules.look_gid))
        log.info("the admin socket is open", path=listener.getsockname())
        await door.serve(listener, task_status=task_status)


class AdminDoor:
    """Serves the admin interface to whoever may use it."""

    def __init__(
        self,
        methods: Methods,
        bulletin: Bulletin,
        rules: Rules,
        peers: PeerReader | None = None,
    ) -> None:
        self._methods = methods
        self._bulletin = bulletin
        self._peers = peers or PeerReader()
        self._n_open = 0
        self._n_of_user: Counter[int] = Counter()
        self._rules = rules

    @property
    def n_connections(self) -> int:
        """Connections that are open."""
        return self._n_open

    async def serve(
        self,
        listener: socket.socket,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve on *listener*, a Unix socket that listens, until cancelled."""
        listener.setblocking(False)
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        async with accepting, trio.open_nursery() as nursery:
            nursery.start_soon(self._methods.meter)
            await nursery.start(partial(trio.serve_listeners, self._admit, [accepting]))
            task_status.started()

    async def _admit(self, stream: trio.SocketStream) -> None:
        """Serve one connection, or close it at once if there are too many."""
        async with stream:
            if self._n_open >= CONNECTIONS_MAX:
                log.warning("too many admin connections, one was refused", most=CONNECTIONS_MAX)
                return
            self._n_open += 1
            try:
                peer = await self._peer_of(stream)
                if peer is not None:
                    await self._serve_peer(stream, peer)
            finally:
                self._n_open -= 1

    async def _peer_of(self, stream: trio.SocketStream) -> Peer | None:
        try:
            return await self._peers.read(stream.socket)
        except OSError as exc:
            log.warning("the peer of an admin connection cannot be known", error=str(exc))
            return None

    async def _serve_peer(self, stream: trio.SocketStream, peer: Peer) -> None:
        if self._n_of_user[peer.uid] >= CONNECTIONS_OF_USER_MAX:
            log.warning(
                "too many admin connections of one user, one was refused",
                peer_uid=peer.uid,
                most=CONNECTIONS_OF_USER_MAX,
            )
            return
        self._n_of_user[peer.uid] += 1
        try:
            await Connection(stream, peer, self._rules, self._methods, self._bulletin).run()
        finally:
            self._n_of_user[peer.uid] -= 1
            if not self._n_of_user[peer.uid]:
                del self._n_of_user[peer.uid]

"""Hypercorn for the HTTP door: the listening socket, limits, and an orderly end."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import hypercorn.config
import trio
from hypercorn.utils import wrap_app

from ollamad.errors import StartupError
from ollamad.http.connection import Connection, Connections
from ollamad.http.scope import AsgiApp

BACKLOG: Final = 1024
HEADER_BYTES_MAX: Final = 1 << 20
IDLE_CONNECTION_S: Final = 300.0
"""How long a connection may stay open between two requests."""

_log = logging.getLogger(__name__)


def open_listener(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket. An empty *host* is all interfaces. Raises StartupError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener: socket.socket | None = None
    try:
        if not host and socket.has_dualstack_ipv6():
            listener = socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
            )
        else:
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise StartupError(
            f"listen tcp {host or '*'}:{port}: {_reason(exc)}; is another daemon running? "
            "OLLAMA_HOST or --port choose another address"
        ) from exc
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _reason(exc: OSError) -> str:
    # socket.create_server adds the address to the text, which is told already.
    return os.strerror(exc.errno).lower() if exc.errno else str(exc)


def is_loopback(host: str) -> bool:
    """Return whether *host* is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def serve_http(
    app: AsgiApp,
    listener: socket.socket,
    *,
    shutdown: Callable[[], Awaitable[None]],
    drain_timeout_s: float,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *app* until *shutdown* returns, then let open requests end, within a limit."""
    config = hypercorn.config.Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.h11_max_incomplete_size = HEADER_BYTES_MAX
    config.keep_alive_timeout = IDLE_CONNECTION_S
    config.include_server_header = False
    connections = Connections()
    connection = partial(
        Connection,
        wrap_app(app, config.wsgi_max_body_size, "asgi"),  # type: ignore[arg-type]
        config,
        connections,
    )
    listener.setblocking(False)
    async with trio.SocketListener(trio.socket.from_stdlib_socket(listener)) as accepting:
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as accept:
                await accept.start(
                    partial(trio.serve_listeners, connection, [accepting], handler_nursery=nursery)
                )
                task_status.started()
                await shutdown()
                accept.cancel_scope.cancel()
            # No new connections from here on; idle ones close, answers end.
            await accepting.aclose()
            await connections.end()
            nursery.cancel_scope.deadline = trio.current_time() + drain_timeout_s

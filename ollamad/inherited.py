"""Sockets that the service manager has opened before it started us, by their names.

The protocol is systemd's: `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`. The order of the
descriptors is not stable, so only their names count.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

from ollamad.errors import StartupError

FIRST_DESCRIPTOR: Final = 3
DESCRIPTORS_MAX: Final = 1024
"""More than a service manager passes to anybody; a larger number is a mistake."""


def inherited_listener(
    name: str, environ: Mapping[str, str], *, first: int = FIRST_DESCRIPTOR
) -> socket.socket | None:
    """Return the listening stream socket of that name, or `None` if none was passed to us.

    It is taken over: children do not inherit it. Raises StartupError if it is something else.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None  # Meant for another process: the variables are inherited.
    try:
        n_passed = int(environ.get("LISTEN_FDS", ""))
    except ValueError:
        return None
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found = [
        first + i for i, each in enumerate(names[: min(n_passed, DESCRIPTORS_MAX)]) if each == name
    ]
    if not found:
        return None
    if len(found) > 1:
        raise StartupError(f"the service manager passed {len(found)} sockets named {name}, not one")
    try:
        os.set_inheritable(found[0], False)
        inherited = socket.socket(fileno=found[0])
    except OSError as exc:
        raise StartupError(
            f"descriptor {found[0]}, passed as {name}, is no socket: {exc.strerror}"
        ) from exc
    is_listening = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if inherited.family != socket.AF_UNIX or inherited.type != socket.SOCK_STREAM:
        inherited.detach()
        raise StartupError(f"the socket passed as {name} is not ListenStream= with a path")
    if not is_listening:
        inherited.detach()
        raise StartupError(f"the socket passed as {name} does not listen (Accept=yes?)")
    return inherited

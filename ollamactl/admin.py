"""The admin door from the client's side: Varlink over a Unix socket, and failures as messages.

Synchronous like the rest of this program. Knows nothing of commands or of how answers look.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from ollamactl.errors import AdminRefused, BadAnswer, CannotConnect, ConnectionLost, CtlError
from ollamactl.wire import JsonObject
from ollamad import varlink
from ollamad.adminwire import (
    ERRORS,
    INTERFACE,
    SOCKET_VARIABLE,
    NextEvent,
    NotLoaded,
    PermissionDenied,
    socket_candidates,
)
from ollamad.errors import ProtocolBroken
from ollamad.varlink import Call, MessageDecoder, Reply

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
"""For answers that need no model to be loaded."""
RECEIVE_BYTES: Final = 64 << 10

_UNKNOWN_TO_IT: Final = frozenset(
    {varlink.METHOD_NOT_FOUND, varlink.METHOD_NOT_IMPLEMENTED, varlink.INTERFACE_NOT_FOUND}
)

T = TypeVar("T")


def find_socket(named: str | None, environ: Mapping[str, str]) -> Path:
    """Return the admin socket: the named one, the variable's, or the first that is there.

    Raises CannotConnect with the places that were looked at.
    """
    chosen = named or environ.get(SOCKET_VARIABLE, "")
    if chosen:
        return Path(chosen)
    try:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError:
        home = Path("/nonexistent")
    candidates = socket_candidates(environ, home)
    for path in candidates:
        with contextlib.suppress(OSError):
            if path.is_socket():
                return path
    looked = "".join(f"\n\t{path}" for path in candidates)
    raise CannotConnect(
        "no admin socket of a running ollamad was found, run 'ollamad serve' to start it, or name "
        f"the socket with --socket or {SOCKET_VARIABLE}; looked at:{looked}"
    )


class AdminClient:
    """Talks to the daemon whose admin socket is at *path*. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoder = MessageDecoder()
        self._replies: deque[bytes] = deque()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_TIMEOUT_S)
        try:
            self._socket.connect(os.fspath(path))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path.
            self._socket.close()
            raise _cannot_connect(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def call(
        self, method: str, *, timeout_s: float | None = READ_TIMEOUT_S, **parameters: object
    ) -> JsonObject:
        """Return what a method of the interface answers. Parameters that are None are left out.

        Raises AdminRefused for an error of the interface, and other CtlErrors.
        """
        self._send(method, parameters, more=False, timeout_s=timeout_s)
        return _parameters_of(self._receive(method))

    def events(self) -> Iterator[JsonObject]:
        """Yield each reply of `Events` as it comes, without end."""
        self._send("Events", {}, more=True, timeout_s=None)
        continues: bool | None = True
        while continues:
            reply = self._receive("Events")
            continues = reply.continues
            yield _parameters_of(reply)

    def _send(
        self, method: str, parameters: Mapping[str, object], *, more: bool, timeout_s: float | None
    ) -> None:
        given = {name: value for name, value in parameters.items() if value is not None}
        call = Call(method=f"{INTERFACE}.{method}", parameters=varlink.raw(given), more=more)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(varlink.encode(call))
        except OSError as error:
            raise self._lost(error) from error
        except ProtocolBroken as error:
            raise CtlError(f"this is too much for one call: {error}") from error

    def _receive(self, method: str) -> Reply:
        """Return the next reply, unless it is an error."""
        try:
            while not self._replies:
                data = self._socket.recv(RECEIVE_BYTES)
                if not data:
                    raise ConnectionLost(
                        f"ollamad closed the connection to {self.path}: it stops, or has too many "
                        "connections; see its log"
                    )
                self._replies.extend(self._decoder.feed(data))
            reply = varlink.decode_reply(self._replies.popleft())
        except TimeoutError as error:
            raise ConnectionLost(
                f"ollamad at {self.path} accepted the call but sends no answer; see its log"
            ) from error
        except OSError as error:
            raise self._lost(error) from error
        except ProtocolBroken as error:
            raise BadAnswer(f"unexpected answer at {self.path} ({error}): is this ollamad?") from (
                error
            )
        if reply.error:
            raise _refusal(method, reply.error, _parameters_of(reply))
        return reply

    def _lost(self, error: OSError) -> ConnectionLost:
        return ConnectionLost(
            f"the connection to ollamad at {self.path} was lost ({error}); see its log"
        )


def answer_as(kind: type[T], answer: JsonObject) -> T:
    """Return *answer* as a value of *kind*. Raises BadAnswer if it is none."""
    try:
        return msgspec.convert(answer, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadAnswer(
            f"ollamad answers in a way that this program does not know ({error}): are both of the "
            "same version?"
        ) from error


def event_of(answer: JsonObject) -> NextEvent:
    """Return one reply of `Events`. Raises BadAnswer."""
    return answer_as(NextEvent, answer)


def _parameters_of(reply: Reply) -> JsonObject:
    packed = bytes(reply.parameters)
    try:
        # The interface is typed, but a newer daemon may say more than this program knows.
        found: Any = msgspec.json.decode(packed)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadAnswer(f"unexpected answer ({error}): is this ollamad?") from error
    if not isinstance(found, dict | None):
        raise BadAnswer("unexpected answer (parameters are no object): is this ollamad?")
    return found or {}


def _cannot_connect(path: Path, error: OSError | ValueError) -> CannotConnect:
    code = error.errno if isinstance(error, OSError) else None
    if code in {errno.ENOENT, errno.ENOTDIR}:
        return CannotConnect(
            f"there is no admin socket at {path}, run 'ollamad serve' to start the daemon, or name "
            f"its socket with --socket or {SOCKET_VARIABLE}"
        )
    if code == errno.ECONNREFUSED:
        return CannotConnect(
            f"nobody answers at the admin socket {path}: its daemon is gone, run 'ollamad serve' "
            "to start one"
        )
    if code in {errno.EACCES, errno.EPERM}:
        return CannotConnect(f"permission denied at the admin socket {path}; {_how_to_join(path)}")
    return CannotConnect(f"could not connect to the admin socket {path}: {error}")


def _how_to_join(path: Path) -> str:
    try:
        group = grp.getgrgid(path.stat().st_gid).gr_name
    except (OSError, KeyError):
        return "it is for the daemon's user and group, and for root"
    return join_hint(group)


def join_hint(group: str) -> str:
    """Return how a person becomes a member of *group*."""
    return f"join the group {group}: sudo usermod -aG {group} $USER, then log in again"


def _refusal(method: str, name: str, parameters: JsonObject) -> CtlError:
    """Return the error that a reply with an error stands for."""
    if name in _UNKNOWN_TO_IT:
        return AdminRefused(
            f"the daemon does not know {method}: it is older than this program, restart it", name
        )
    if name == varlink.INVALID_PARAMETER:
        parameter = str(parameters.get("parameter", ""))
        return AdminRefused(
            f"the daemon does not take {parameter} for {method}: it is older than this program, or "
            "the value is wrong",
            name,
        )
    message = str(parameters.get("message") or name)
    kind = ERRORS.get(name)
    if kind is PermissionDenied and (group := str(parameters.get("group", ""))):
        message = f"permission denied: {message}; {join_hint(group)}"
    elif kind is NotLoaded:
        message += " (see 'ollamactl runners')"
    return AdminRefused(message, name)

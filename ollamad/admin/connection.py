"""One connection of the admin door: calls in, replies out, one call after another.

Every reply is made here, errors of the protocol among them; what methods do is in `methods.py`.
A peer can hold up nothing but its own connection.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final

import msgspec
import trio

from ollamad import __version__, varlink
from ollamad import adminwire as wire
from ollamad.admin import looking
from ollamad.admin.errors import InvalidParameter, Refused
from ollamad.admin.inbox import Inbox
from ollamad.admin.methods import Methods
from ollamad.admin.peers import Access, Peer, Rules
from ollamad.errors import ProtocolBroken
from ollamad.log import get_logger
from ollamad.supervisor.bulletin import Bulletin
from ollamad.varlink import Call, Reply

SEND_TIMEOUT_S: Final = 10.0
"""How long a peer may take to accept a reply; only those to `Events` may take longer."""
NAME_CHARS_MAX: Final = 200
"""Characters of a peer's words that an error repeats."""

DESCRIPTION: Final = (
    resources.files("ollamad.admin")
    .joinpath(f"{wire.INTERFACE}.varlink")
    .read_text(encoding="utf-8")
)
"""The interface in Varlink's own language."""
SERVICE_DESCRIPTION: Final = (
    resources.files("ollamad.admin")
    .joinpath(f"{varlink.SERVICE}.varlink")
    .read_text(encoding="utf-8")
)

_WRONG_FIELD: Final = re.compile(r"`\$\.([A-Za-z0-9_]+)|field `([^`]+)`")

log = get_logger(__name__)


class _OfInterface(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    interface: str


class Connection:
    """Answers the calls of one peer."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        peer: Peer,
        rules: Rules,
        methods: Methods,
        bulletin: Bulletin,
    ) -> None:
        self._stream = stream
        self._inbox = Inbox(stream)
        self._peer = peer
        self._rules = rules
        self._access = rules.access_of(peer)
        self._methods = methods
        self._bulletin = bulletin

    async def run(self) -> None:
        """Answer calls until the peer hangs up. What breaks the protocol ends the connection.

        A peer that may do nothing learns so once.
        """
        try:
            while (message := await self._inbox.receive()) is not None:
                await self._take(varlink.decode_call(message))
                if self._access is Access.NONE:
                    break
        except (ProtocolBroken, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            log.debug(
                "an admin connection ended early",
                reason=str(exc) or type(exc).__name__,
                peer_uid=self._peer.uid,
                peer_pid=self._peer.pid,
            )

    async def _take(self, call: Call) -> None:
        """Answer one call.

        1. The peer may do nothing here: tell it.
        2. It wants another protocol: there is none.
        3. It asks about the service.
        4. It asks for another interface, or a method that there is not: errors of the protocol.
        5. The method changes something, which the peer may not: tell it.
        6. The method streams: reply until the peer hangs up.
        7. Any other method: one reply.
        """
        interface, _, name = call.method.rpartition(".")
        spec = wire.METHODS.get(name) if interface == wire.INTERFACE else None
        if self._access is Access.NONE:  # 1
            await self._reply(call, self._denied(self._rules.look_group))
        elif call.upgrade:  # 2
            named = call.method[:NAME_CHARS_MAX]
            await self._reply(call, _error(varlink.METHOD_NOT_IMPLEMENTED, method=named))
        elif interface == varlink.SERVICE:  # 3
            await self._reply(call, _about_service(call))
        elif interface != wire.INTERFACE:  # 4
            named = interface[:NAME_CHARS_MAX]
            await self._reply(call, _error(varlink.INTERFACE_NOT_FOUND, interface=named))
        elif spec is None:
            named = call.method[:NAME_CHARS_MAX]
            await self._reply(call, _error(varlink.METHOD_NOT_FOUND, method=named))
        elif spec.changes and self._access is not Access.CHANGE:  # 5
            await self._reply(call, self._denied(self._rules.change_group))
        elif spec.streams:  # 6
            await self._stream_events(call)
        elif spec.waits:  # 7
            await self._unless_hung_up(lambda: self._answer(call, name, spec))
        else:
            await self._answer(call, name, spec)

    def _denied(self, group: str) -> Reply:
        log.info(
            "refused a peer of the admin door",
            group=group,
            peer_uid=self._peer.uid,
            peer_pid=self._peer.pid,
        )
        what = "look" if group == self._rules.look_group else "change things"
        return _refusal(
            wire.PermissionDenied(
                message=f"only root, the daemon's user and members of the group {group} may {what}",
                group=group,
            )
        )

    async def _answer(self, call: Call, name: str, spec: wire.MethodSpec) -> None:
        await self._reply(call, await self._result(call, name, spec))

    async def _result(self, call: Call, name: str, spec: wire.MethodSpec) -> Reply:
        """Return what the method returns, or why not. A bug in it is logged, and told to be one."""
        try:
            parameters = read_parameters(call, spec.takes)
            result = await self._methods.answer(name, parameters, self._peer, self._access)
            return Reply(parameters=varlink.raw(result))
        except InvalidParameter as exc:
            return _error(varlink.INVALID_PARAMETER, parameter=exc.parameter)
        except Refused as exc:
            return _refusal(exc.error)
        except Exception:
            log.exception("a call over the admin door failed", method=name)
            return _refusal(wire.Failed(message=f"{name} failed, the daemon's log tells why"))

    # Waiting

    async def _unless_hung_up(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work*, or give it up when the peer has hung up. Nothing is raised but by *work*."""
        broken: list[Exception] = []

        async def watch(scope: trio.CancelScope) -> None:
            try:
                await self._inbox.hung_up()
            except ProtocolBroken as exc:
                broken.append(exc)
            scope.cancel()

        async def do(scope: trio.CancelScope) -> None:
            # Raised here, an error would come out of the nursery in a group.
            try:
                await work()
            except (ProtocolBroken, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                broken.append(exc)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            nursery.start_soon(do, nursery.cancel_scope)
        for exc in broken:
            raise exc

    async def _stream_events(self, call: Call) -> None:
        try:
            read_parameters(call, wire.Nothing)
        except InvalidParameter as exc:
            await self._reply(call, _error(varlink.INVALID_PARAMETER, parameter=exc.parameter))
            return
        if not call.more:
            await self._reply(call, _error(varlink.EXPECTED_MORE))
            return
        await self._unless_hung_up(lambda: self._send_events(call))

    async def _send_events(self, call: Call) -> None:
        with self._bulletin.subscribed() as subscription:
            next_event = wire.NextEvent()
            while True:
                reply = Reply(parameters=varlink.raw(next_event), continues=True)
                if not call.oneway:
                    # Without a time limit: a reader that stops for an hour costs its own buffer.
                    await self._stream.send_all(varlink.encode(reply))
                entry, missed = await subscription.take()
                event = looking.event(entry)
                next_event = wire.NextEvent(event=event, missed=missed)

    # Replies

    async def _reply(self, call: Call, reply: Reply) -> None:
        if call.oneway:
            return
        try:
            message = varlink.encode(reply)
        except ProtocolBroken:
            log.exception("an answer over the admin door is too long", method=call.method)
            message = varlink.encode(
                _refusal(wire.Failed(message="the answer is too long to send"))
            )
        with trio.move_on_after(SEND_TIMEOUT_S) as patience:
            await self._stream.send_all(message)
        if patience.cancelled_caught:
            raise ProtocolBroken(f"a reply was not taken within {SEND_TIMEOUT_S:g} s")


def read_parameters(call: Call, kind: type[Any]) -> Any:
    """Return a call's parameters as a *kind* (hence Any). Raises InvalidParameter."""
    packed = bytes(call.parameters)
    try:
        return msgspec.json.decode(b"{}" if packed == b"null" else packed, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        found = _WRONG_FIELD.search(str(exc))
        named = next(filter(None, found.groups()), "parameters") if found else "parameters"
        raise InvalidParameter(named[:NAME_CHARS_MAX]) from exc


def _about_service(call: Call) -> Reply:
    """Answer a call of `org.varlink.service`, the interface that all services have."""
    name = call.method.rpartition(".")[2]
    try:
        if name == "GetInfo":
            read_parameters(call, wire.Nothing)
            return Reply(
                parameters=varlink.raw(
                    {
                        "vendor": "The ollamad developers",
                        "product": "ollamad",
                        "version": __version__,
                        "url": "",
                        "interfaces": [varlink.SERVICE, wire.INTERFACE],
                    }
                )
            )
        if name == "GetInterfaceDescription":
            wanted = read_parameters(call, _OfInterface).interface
            texts = {varlink.SERVICE: SERVICE_DESCRIPTION, wire.INTERFACE: DESCRIPTION}
            if wanted not in texts:
                named = wanted[:NAME_CHARS_MAX]
                return _error(varlink.INTERFACE_NOT_FOUND, interface=named)
            return Reply(parameters=varlink.raw({"description": texts[wanted]}))
    except InvalidParameter as exc:
        return _error(varlink.INVALID_PARAMETER, parameter=exc.parameter)
    return _error(varlink.METHOD_NOT_FOUND, method=call.method[:NAME_CHARS_MAX])


def _error(name: str, **parameters: str) -> Reply:
    return Reply(error=name, parameters=varlink.raw(parameters))


def _refusal(error: wire.AdminError) -> Reply:
    name = f"{wire.INTERFACE}.{type(error).__name__}"
    return Reply(error=name, parameters=varlink.raw(error))

"""Who is at the other end of the admin socket, and what they may do.

The kernel tells who a peer is (`SO_PEERCRED`, `SO_PEERGROUPS`), as of its `connect`; nothing that
it says itself counts. Looking is for one group, changing for another; root and the daemon's own
user may do both.
"""

from __future__ import annotations

import dataclasses
import enum
import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from ollamad.log import get_logger

SO_PEERGROUPS: Final = 59
"""Linux has it since 4.13; Python has no name for it."""
_CREDENTIALS: Final = struct.Struct("3i")
_GID: Final = struct.Struct("I")
GROUPS_BYTES_MAX: Final = 1024
"""What Python lets a socket option be: 256 groups. Peers with more are looked up by name."""
LOOKUP_TIMEOUT_S: Final = 5.0
"""How long the system's user database, which may be on another machine, may take."""
LOOKUP_THREADS_MAX: Final = 2
"""Threads that wait for it at once."""

log = get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A process at the other end of a socket, as the kernel knows it."""

    pid: int
    uid: int
    groups: frozenset[int]
    """Its group and its supplementary ones."""


class Access(enum.IntEnum):
    """What a peer may do. Whoever may change may look."""

    NONE = 0
    LOOK = 1
    CHANGE = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Who may do what."""

    own_uid: int
    look_group: str
    look_gid: int | None
    """`None` if there is no such group."""
    change_group: str
    change_gid: int | None

    def access_of(self, peer: Peer) -> Access:
        """Return what *peer* may do."""
        if peer.uid in {0, self.own_uid} or self.change_gid in peer.groups:
            return Access.CHANGE
        return Access.LOOK if self.look_gid in peer.groups else Access.NONE


def read_rules(look_group: str, change_group: str) -> Rules:
    """Return the rules for groups of these names. Asks the system's database, which may wait."""
    return Rules(
        own_uid=os.geteuid(),
        look_group=look_group,
        look_gid=_gid_of(look_group),
        change_group=change_group,
        change_gid=_gid_of(change_group),
    )


def _gid_of(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


Lookup = Callable[[int, int], frozenset[int]]
"""From a user id and its first group to all of its groups. May wait."""


def groups_by_name(uid: int, gid: int) -> frozenset[int]:
    """Return the groups that the system's database gives a user; it may wait for a network."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return frozenset({gid})
    return frozenset(os.getgrouplist(name, gid))


class PeerReader:
    """Reads who is at the other end. Its own class so that tests can say who is."""

    def __init__(self, lookup: Lookup = groups_by_name) -> None:
        self._lookup = lookup
        self._threads = trio.CapacityLimiter(LOOKUP_THREADS_MAX)

    async def read(self, connection: trio.socket.SocketType) -> Peer:
        """Return the peer of a connected Unix socket. Raises OSError.

        Where the kernel does not tell its supplementary groups they are looked up, in a thread
        and for a bounded time; a peer that cannot be looked up has its own group only.
        """
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(packed)
        groups = _kernel_groups(connection)
        if groups is None:
            groups = await self._looked_up(uid, gid)
        return Peer(pid=pid, uid=uid, groups=groups | {gid})

    async def _looked_up(self, uid: int, gid: int) -> frozenset[int]:
        with trio.move_on_after(LOOKUP_TIMEOUT_S):
            return await trio.to_thread.run_sync(
                partial(self._lookup, uid, gid), limiter=self._threads, abandon_on_cancel=True
            )
        log.warning(
            "the groups of a peer could not be looked up in time", uid=uid, seconds=LOOKUP_TIMEOUT_S
        )
        return frozenset()


def _kernel_groups(connection: trio.socket.SocketType) -> frozenset[int] | None:
    """Return what the kernel knows of a peer's groups; `None` if it tells nothing, or too many."""
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BYTES_MAX)
    except OSError:
        return None
    return frozenset(gid for (gid,) in _GID.iter_unpack(packed))

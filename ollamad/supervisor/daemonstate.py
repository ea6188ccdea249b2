"""The daemon's own machine: serving, paused, draining, stopped. Before it serves there is no core.

Paused is what an administrator's drain makes: no new work, models leave, and it may serve again.
Draining is the way to the daemon's end and never turns back.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from ollamad.errors import ProtocolBroken


class DaemonState(enum.Enum):
    """Where the daemon is in its life."""

    SERVING = "serving"
    PAUSED = "paused"
    DRAINING = "draining"
    STOPPED = "stopped"


class DaemonEvent(enum.Enum):
    """What can happen to the daemon."""

    PAUSE_ASKED = "pause asked"
    RESUME_ASKED = "resume asked"
    DRAIN_ASKED = "drain asked"
    ALL_GONE = "all gone"


S, E = DaemonState, DaemonEvent

TRANSITIONS: Final[Mapping[DaemonState, Mapping[DaemonEvent, DaemonState]]] = {
    S.SERVING: {
        E.PAUSE_ASKED: S.PAUSED,
        E.RESUME_ASKED: S.SERVING,
        E.DRAIN_ASKED: S.DRAINING,
    },
    S.PAUSED: {
        E.PAUSE_ASKED: S.PAUSED,
        E.RESUME_ASKED: S.SERVING,
        E.DRAIN_ASKED: S.DRAINING,
    },
    S.DRAINING: {
        E.PAUSE_ASKED: S.DRAINING,
        E.RESUME_ASKED: S.DRAINING,
        E.DRAIN_ASKED: S.DRAINING,
        E.ALL_GONE: S.STOPPED,
    },
    S.STOPPED: {
        E.PAUSE_ASKED: S.STOPPED,
        E.RESUME_ASKED: S.STOPPED,
        E.DRAIN_ASKED: S.STOPPED,
    },
}


def advance(state: DaemonState, event: DaemonEvent) -> DaemonState:
    """Return the state after *event*. Raises ProtocolBroken if the table has no such row."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ProtocolBroken(f"a daemon that is {state.name} cannot take {event.name}") from None

"""The daemon's own machine: serving, draining, stopped. Before it serves there is no core."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from ollamad.errors import ProtocolBroken


class DaemonState(enum.Enum):
    """Where the daemon is in its life."""

    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


class DaemonEvent(enum.Enum):
    """What can happen to the daemon."""

    DRAIN_ASKED = "drain asked"
    ALL_GONE = "all gone"


TRANSITIONS: Final[Mapping[DaemonState, Mapping[DaemonEvent, DaemonState]]] = {
    DaemonState.SERVING: {DaemonEvent.DRAIN_ASKED: DaemonState.DRAINING},
    DaemonState.DRAINING: {
        DaemonEvent.DRAIN_ASKED: DaemonState.DRAINING,
        DaemonEvent.ALL_GONE: DaemonState.STOPPED,
    },
    DaemonState.STOPPED: {DaemonEvent.DRAIN_ASKED: DaemonState.STOPPED},
}


def advance(state: DaemonState, event: DaemonEvent) -> DaemonState:
    """Return the state after *event*. Raises ProtocolBroken if the table has no such row."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ProtocolBroken(f"a daemon that is {state.name} cannot take {event.name}") from None

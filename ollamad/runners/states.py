"""The runner's state machine: an enum, a table, and `advance`.

Busy and idle are not states: they are leases held or not, and so cannot disagree with the leases.
The reservation of memory is held from STARTING until GONE, because a dead process still owns its
memory until the device says otherwise.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from ollamad.errors import ProtocolBroken


class RunnerState(enum.Enum):
    """Where a runner is in its life."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    RECLAIMING = "reclaiming"
    GONE = "gone"


class RunnerEvent(enum.Enum):
    """What can happen to a runner."""

    HELLO = "hello"
    LOADED = "loaded"
    LOAD_FAILED = "load failed"
    EVICT_ORDERED = "evict ordered"
    STOP_ORDERED = "stop ordered"
    LAST_LEASE_RELEASED = "last lease released"
    STALLED = "stalled"
    TIMED_OUT = "timed out"
    EXITED = "exited"
    MEMORY_RETURNED = "memory returned"


S, E = RunnerState, RunnerEvent

TRANSITIONS: Final[Mapping[RunnerState, Mapping[RunnerEvent, RunnerState]]] = {
    S.STARTING: {
        E.HELLO: S.LOADING,
        E.TIMED_OUT: S.STOPPING,
        E.STOP_ORDERED: S.STOPPING,
        E.EXITED: S.RECLAIMING,
    },
    S.LOADING: {
        E.LOADED: S.READY,
        E.LOAD_FAILED: S.STOPPING,
        E.TIMED_OUT: S.STOPPING,
        E.STOP_ORDERED: S.STOPPING,
        E.EXITED: S.RECLAIMING,
    },
    S.READY: {
        E.EVICT_ORDERED: S.DRAINING,
        E.STOP_ORDERED: S.STOPPING,
        E.STALLED: S.STOPPING,
        E.EXITED: S.RECLAIMING,
    },
    S.DRAINING: {
        E.LAST_LEASE_RELEASED: S.STOPPING,
        E.TIMED_OUT: S.STOPPING,
        E.STOP_ORDERED: S.STOPPING,
        E.STALLED: S.STOPPING,
        E.EXITED: S.RECLAIMING,
    },
    S.STOPPING: {E.EXITED: S.RECLAIMING},
    S.RECLAIMING: {E.MEMORY_RETURNED: S.GONE, E.TIMED_OUT: S.GONE},
    S.GONE: {},
}


def advance(state: RunnerState, event: RunnerEvent) -> RunnerState:
    """Return the state after *event*. Raises ProtocolBroken if the table has no such row."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ProtocolBroken(f"a runner in {state.name} cannot take {event.name}") from None

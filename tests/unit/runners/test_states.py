from __future__ import annotations

import itertools

import pytest

from ollamad.errors import ProtocolBroken
from ollamad.runners.states import TRANSITIONS, RunnerEvent, RunnerState, advance

S, E = RunnerState, RunnerEvent

LEGAL = {
    (S.STARTING, E.HELLO): S.LOADING,
    (S.STARTING, E.TIMED_OUT): S.STOPPING,
    (S.STARTING, E.STOP_ORDERED): S.STOPPING,
    (S.STARTING, E.EXITED): S.RECLAIMING,
    (S.LOADING, E.LOADED): S.READY,
    (S.LOADING, E.LOAD_FAILED): S.STOPPING,
    (S.LOADING, E.TIMED_OUT): S.STOPPING,
    (S.LOADING, E.STOP_ORDERED): S.STOPPING,
    (S.LOADING, E.EXITED): S.RECLAIMING,
    (S.READY, E.EVICT_ORDERED): S.DRAINING,
    (S.READY, E.STOP_ORDERED): S.STOPPING,
    (S.READY, E.STALLED): S.STOPPING,
    (S.READY, E.EXITED): S.RECLAIMING,
    (S.DRAINING, E.LAST_LEASE_RELEASED): S.STOPPING,
    (S.DRAINING, E.TIMED_OUT): S.STOPPING,
    (S.DRAINING, E.STOP_ORDERED): S.STOPPING,
    (S.DRAINING, E.STALLED): S.STOPPING,
    (S.DRAINING, E.EXITED): S.RECLAIMING,
    (S.STOPPING, E.EXITED): S.RECLAIMING,
    (S.RECLAIMING, E.MEMORY_RETURNED): S.GONE,
    (S.RECLAIMING, E.TIMED_OUT): S.GONE,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_each_event_in_each_state_does_what_the_design_says_or_is_refused(
    state: RunnerState, event: RunnerEvent
) -> None:
    if (state, event) in LEGAL:
        assert advance(state, event) is LEGAL[state, event]
    else:
        with pytest.raises(ProtocolBroken, match=f"{state.name} cannot take {event.name}"):
            advance(state, event)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(S)


@pytest.mark.parametrize("state", [s for s in S if s not in {S.RECLAIMING, S.GONE}])
def test_a_process_may_die_at_any_time_and_its_memory_is_reclaimed(state: RunnerState) -> None:
    assert advance(state, E.EXITED) is S.RECLAIMING

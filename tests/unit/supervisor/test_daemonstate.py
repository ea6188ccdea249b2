from __future__ import annotations

import itertools

import pytest

from ollamad.errors import ProtocolBroken
from ollamad.supervisor.daemonstate import TRANSITIONS, DaemonEvent, DaemonState, advance

S, E = DaemonState, DaemonEvent
LEGAL = {
    (S.SERVING, E.PAUSE_ASKED): S.PAUSED,
    (S.SERVING, E.RESUME_ASKED): S.SERVING,
    (S.SERVING, E.DRAIN_ASKED): S.DRAINING,
    (S.PAUSED, E.PAUSE_ASKED): S.PAUSED,
    (S.PAUSED, E.RESUME_ASKED): S.SERVING,
    (S.PAUSED, E.DRAIN_ASKED): S.DRAINING,
    (S.DRAINING, E.PAUSE_ASKED): S.DRAINING,
    (S.DRAINING, E.RESUME_ASKED): S.DRAINING,
    (S.DRAINING, E.DRAIN_ASKED): S.DRAINING,
    (S.DRAINING, E.ALL_GONE): S.STOPPED,
    (S.STOPPED, E.PAUSE_ASKED): S.STOPPED,
    (S.STOPPED, E.RESUME_ASKED): S.STOPPED,
    (S.STOPPED, E.DRAIN_ASKED): S.STOPPED,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_each_event_in_each_state_does_what_the_design_says_or_is_refused(
    state: DaemonState, event: DaemonEvent
) -> None:
    if (state, event) in LEGAL:
        assert advance(state, event) is LEGAL[state, event]
    else:
        with pytest.raises(ProtocolBroken, match=f"{state.name} cannot take {event.name}"):
            advance(state, event)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(S)

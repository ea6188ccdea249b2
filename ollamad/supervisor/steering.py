"""What is asked of runners from outside: by users, and by those who administer the daemon. Pure."""

from __future__ import annotations

from typing import Final, assert_never

from ollamad.errors import LoadFailed
from ollamad.modelinfo import WeightsId
from ollamad.runners.states import RunnerState
from ollamad.supervisor import notes
from ollamad.supervisor.commands import Note, NoteKind
from ollamad.supervisor.events import (
    EvictAsked,
    PinAsked,
    ResetAsked,
    RestartAsked,
    Subject,
    UnloadAsked,
)
from ollamad.supervisor.residents import COMING, Resident
from ollamad.supervisor.roster import Roster

PINS_MAX: Final = 1024
"""Models for which an administrator's word about pinning is remembered; the oldest goes first."""

_WHY: Final = "an administrator asked for it"

AskedOfRunner = UnloadAsked | EvictAsked | RestartAsked | PinAsked
"""What may be asked of a runner."""
Asked = AskedOfRunner | ResetAsked
"""What may be asked about one model."""


class Steering:
    """Does what is asked about one model, and remembers what was said about pinning."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._pins: dict[WeightsId, bool] = {}

    def is_pinned(self, subject: Subject) -> bool:
        """Return whether *subject* stays once loaded: by an administrator's word, or by policy."""
        return self._pins.get(subject.weights_id, subject.policy.pinned)

    def take(self, event: Asked, now: float) -> None:
        """Do as asked. Nothing happens where there is nothing to act on."""
        weights_id = event.weights_id
        if isinstance(event, ResetAsked):
            if self._roster.failures.reset(weights_id):
                words = f"what failed of {weights_id} is forgotten"
                self._roster.note(Note(NoteKind.RESET, words, {"weights": weights_id}))
            return
        if isinstance(event, PinAsked):
            self._remember(weights_id, is_pinned=event.is_pinned)
        if (resident := self._roster.of(weights_id)) is not None:
            self._steer(resident, event, now)

    def _steer(self, resident: Resident, event: AskedOfRunner, now: float) -> None:
        match event:
            case UnloadAsked():
                resident.keep_alive_s = 0.0
            case PinAsked(_, is_pinned):
                resident.is_pinned = is_pinned
                self._roster.note(notes.pinned(resident))
            case EvictAsked(_, by_force) if by_force:
                self._force_away(resident, now)
            case EvictAsked():
                self._send_away(resident, now)
            case RestartAsked() if resident.state not in COMING:
                resident.restarts = True
                if resident.state is RunnerState.READY:
                    self._roster.evict(resident, "it is to be restarted", now)
            case RestartAsked():
                pass  # It is coming, and so as fresh as can be.
            case _:
                assert_never(event)

    def clear(self, now: float) -> None:
        """Let every runner leave as soon as nobody uses it; stop the loads nobody can use."""
        for resident in list(self._roster.residents.values()):
            resident.restarts = False
            if resident.state in COMING:
                self._roster.stop(resident, "the daemon takes no more work", now)
            elif resident.is_idle:
                self._roster.evict(resident, "the daemon takes no more work", now)

    def _remember(self, weights_id: WeightsId, *, is_pinned: bool) -> None:
        self._pins.pop(weights_id, None)
        self._pins[weights_id] = is_pinned
        if len(self._pins) > PINS_MAX:
            del self._pins[next(iter(self._pins))]

    def _send_away(self, resident: Resident, now: float) -> None:
        """Let a runner leave when its answers are finished, also a pinned one."""
        if resident.state is RunnerState.READY:
            self._roster.evict(resident, _WHY, now)
        elif resident.state in COMING:
            resident.keep_alive_s, resident.is_pinned = 0.0, False

    def _force_away(self, resident: Resident, now: float) -> None:
        """Stop a runner at once, whoever uses it. Who waits for its load is refused."""
        was_coming = resident.state in COMING
        self._roster.stop(resident, _WHY, now)
        if was_coming:
            error = LoadFailed(f"{resident.subject.name} was stopped: {_WHY}")
            self._roster.tell_waiters(resident, error)

"""May a request go on whose runner has died? Pure.

A request that loses its runner goes on with another one, a bounded number of times, unless it is
itself what kills them. Who that is cannot be seen from outside: a batch dies as a whole. So what a
runner had in hand when it died is put *on trial* with the next one: granted one at a time, until
something comes of it. Then whoever was in hand at two deaths in a row and got nothing from the
second runner was alone with it, and is the likely killer; all others were served, or had not begun.

Against this stands to blame everybody who was there twice: simpler, and it would end the very
streams that healing is for. What is given up is a little time: after a crash, prompts are computed
one after the other.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections import OrderedDict
from typing import Final

from ollamad.modelinfo import WeightsId

DEATHS_OF_A_KILLER: Final = 2
"""Runners in a row that must die with a request in hand before it is blamed. One is bad luck."""
SUSPECTS_KEPT: Final = 256
"""Inputs that are remembered as likely killers; the oldest is forgotten for a newer one."""
SUSPECTS_KEPT_S: Final = 600.0
"""How long an input is refused at once after it was blamed: a client that tries it again and again
must not end everybody's runner each time, and a blamed innocent must not be shut out for ever."""

_FINGERPRINT_BYTES: Final = 16


class Part(enum.Enum):
    """What a request had to do with a runner that has died."""

    ABSENT = "absent"
    """The runner had nothing of it in hand."""
    SERVED = "served"
    """It had got something from the runner."""
    UNSERVED = "unserved"
    """The runner had it in hand, and nothing had come of it yet."""


class Fate(enum.Enum):
    """What becomes of a request that has lost its runner."""

    GOES_ON = "goes on"
    BLAMED = "blamed"
    """It is the likely killer."""
    SPENT = "spent"
    """It has gone on as often as it may."""


@dataclasses.dataclass(slots=True)
class HealingRecord:
    """What one request has been through."""

    n_healed: int = 0
    """How often it has been sent to another runner."""
    n_deaths: int = 0
    """Runners that died with it in hand, in a row."""
    is_on_trial: bool = False
    """It must show that a runner survives it before others join it there."""

    def judge(self, part: Part, *, attempts_max: int) -> Fate:
        """Take note of another death, and say what becomes of the request.

        1. It was in hand at this death and the one before, and got nothing: blamed.
        2. It has gone on as often as it may: spent.
        3. It goes on; on trial, if the runner had it in hand.
        """
        if part is not Part.ABSENT:
            self.n_deaths += 1
        if part is Part.UNSERVED and self.n_deaths >= DEATHS_OF_A_KILLER:
            return Fate.BLAMED
        if self.n_healed >= attempts_max:
            return Fate.SPENT
        self.n_healed += 1
        self.is_on_trial = self.is_on_trial or part is not Part.ABSENT
        return Fate.GOES_ON


class Suspects:
    """Inputs that were blamed lately, as fingerprints: their text is not kept.

    Times are seconds of one clock that goes forward.
    """

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, fingerprint: bytes, now: float) -> None:
        """Remember an input for a while."""
        self._until[fingerprint] = now + SUSPECTS_KEPT_S
        self._until.move_to_end(fingerprint)
        if len(self._until) > SUSPECTS_KEPT:
            self._until.popitem(last=False)

    def are_empty(self, now: float) -> bool:
        """Nothing is remembered, so nothing need be looked up."""
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        return not self._until

    def refused_for_s(self, fingerprint: bytes, now: float) -> float:
        """Return for how long an input is refused yet; 0 if it is not."""
        return max(self._until.get(fingerprint, now) - now, 0.0)


def fingerprint_of(weights_id: WeightsId, *texts: str) -> bytes:
    """Return what tells an input to a model from others. It cannot be turned back."""
    digest = hashlib.blake2b(weights_id.encode(), digest_size=_FINGERPRINT_BYTES)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()

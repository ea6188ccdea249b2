"""The inventory: which devices there are now, whether they may be used, and who uses them. Pure.

It keeps the budget true to what was last seen, and says what came, what was lost and what may no
longer be used; what follows for the runners is the roster's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import HOST, USABLE, DeviceId, DeviceKind, DeviceReading, SeenDevice
from ollamad.runners.states import RunnerState
from ollamad.supervisor.events import DevicesSeen
from ollamad.supervisor.residents import Resident

RETURNED_SHARE: Final = 0.75
"""The part of what a runner held on a GPU that must be free again before the rest is believed to
be, where the driver does not list processes. Others take and give back memory meanwhile."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is different since the devices were last seen."""

    came: tuple[SeenDevice, ...] = ()
    lost: tuple[SeenDevice, ...] = ()
    turned: tuple[SeenDevice, ...] = ()
    """Their health is another."""


class Inventory:
    """The devices as they were last seen."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._seen: dict[DeviceId, SeenDevice] = {}

    @property
    def devices(self) -> tuple[SeenDevice, ...]:
        """All devices there are, in the order in which they came."""
        return tuple(self._seen.values())

    @property
    def n_gpus(self) -> int:
        """GPUs that may be used."""
        return sum(
            one.facts.kind is not DeviceKind.HOST and one.health in USABLE for one in self.devices
        )

    def is_usable(self, device: DeviceId) -> bool:
        """It is there and takes models. Main memory always does."""
        one = self._seen.get(device)
        return device == HOST or (one is not None and one.health in USABLE)

    def is_lost(self, device: DeviceId) -> bool:
        """It is not there any more."""
        return device != HOST and device not in self._seen

    def used_bytes(self, device: DeviceId) -> int:
        """Return what was in use of it, by anybody, when it was last seen."""
        one = self._seen.get(device)
        return one.used_bytes if one is not None else 0

    def take(self, event: DevicesSeen, residents: Collection[Resident]) -> Changes:
        """Learn which devices there are, and what others use of them."""
        old, self._seen = self._seen, {one.facts.device: one for one in event.devices}
        for device in self._budget.devices:
            # Main memory is not lost, whoever forgets to mention it.
            if device not in self._seen and device != HOST:
                self._budget.lose(device)
        for one in self.devices:
            self._budget.see(one.facts, is_usable=one.health in USABLE)
            self._read(one, [r for r in residents if one.facts.device in r.placement.amounts])
        return Changes(
            came=tuple(one for device, one in self._seen.items() if device not in old),
            lost=tuple(
                one for device, one in old.items() if device not in self._seen and device != HOST
            ),
            turned=tuple(
                one
                for device, one in self._seen.items()
                if device in old and old[device].health is not one.health
            ),
        )

    def _read(self, one: SeenDevice, here: Sequence[Resident]) -> None:
        """Learn what others use, if it can be told from what our runners use.

        Of main memory it can if what they use now is known; of a GPU, if the driver lists them, or
        if none of them comes or goes.
        """
        device = one.facts.device
        if device == HOST and one.by_process:
            reading = DeviceReading(device=device, used_bytes=one.used_bytes)
            self._budget.take_reading(reading, sum(one.by_process.values()))
            return
        for resident in here:
            if device != HOST and resident.pid in one.by_process:
                self._measure(resident, device, one.by_process[resident.pid])
        if all(r.state is RunnerState.READY or r.pid in one.by_process for r in here):
            self._budget.take_reading(DeviceReading(device=device, used_bytes=one.used_bytes))

    def _measure(self, resident: Resident, device: DeviceId, n_bytes: int) -> None:
        """Learn what a runner uses of a GPU.

        Until it is loaded its estimate stays reserved. Afterwards the first measure counts, and
        every larger one: large batches take memory that is kept.
        """
        resident.listed.add(device)
        is_loaded = resident.memory is not None
        if is_loaded and device not in resident.measured:
            resident.measured.add(device)
            held_bytes = n_bytes
        else:
            held_bytes = max(self._budget.held_by(resident.runner).get(device, 0), n_bytes)
        self._budget.correct(resident.runner, {device: held_bytes}, {device: n_bytes})

    def unreturned(self, resident: Resident) -> dict[DeviceId, int]:
        """Return the GPUs that must show that an ended runner's memory is back.

        None for one that never said hello: it has never touched them.
        """
        if not resident.pid:
            return {}
        return {
            device: self.used_bytes(device) for device in resident.gpus if not self.is_lost(device)
        }

    def still_holds(self, resident: Resident, held: Mapping[DeviceId, int]) -> dict[DeviceId, int]:
        """Return which of `unreturned` still do not show that the memory is back."""
        return {
            device: used_at_end
            for device, used_at_end in resident.unreturned.items()
            if not self._is_returned(resident, device, used_at_end, held.get(device, 0))
        }

    def _is_returned(
        self, resident: Resident, device: DeviceId, used_at_end: int, held_bytes: int
    ) -> bool:
        one = self._seen.get(device)
        if one is None:
            return True
        if device in resident.listed:
            return resident.pid not in one.by_process
        return one.used_bytes <= used_at_end - RETURNED_SHARE * held_bytes

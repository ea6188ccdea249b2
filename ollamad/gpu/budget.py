"""The budget of each device. Pure bookkeeping, with an invariant that can be checked.

Free is capacity, less headroom, less what others use, less our reservations. A reservation is what
a runner was promised, touched or not; a reading counts only what was touched. So what others use is
what a reading shows less what our own processes use *at that moment*: as a runner touches what it
was promised, both grow, and nothing is taken for somebody else's. Where our use at the moment is
not known, what loads measured stands for it, and is right only until then untouched memory is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping

from ollamad.errors import ProtocolBroken
from ollamad.gpu.devices import DeviceFacts, DeviceId, DeviceReading
from ollamad.gpu.limits import DeviceLimits

Amounts = Mapping[DeviceId, int]
"""Bytes by device."""

LimitsOf = Callable[[DeviceFacts], DeviceLimits]
"""What may be planned with of a device, also of one that is found later."""


def all_of_it(facts: DeviceFacts) -> DeviceLimits:
    """Return limits that leave nothing of a device unused."""
    return DeviceLimits(facts.capacity_bytes, 0)


@dataclasses.dataclass(slots=True)
class _Account:
    capacity_bytes: int
    headroom_bytes: int
    others_bytes: int = 0
    reserved: dict[Hashable, int] = dataclasses.field(default_factory=dict)
    measured: dict[Hashable, int] = dataclasses.field(default_factory=dict)


class Budget:
    """Who holds how much of which device."""

    def __init__(self, devices: Iterable[DeviceFacts], limits_of: LimitsOf = all_of_it) -> None:
        self._limits_of = limits_of
        self._accounts: dict[DeviceId, _Account] = {}
        for facts in devices:
            self.see(facts)

    @property
    def devices(self) -> tuple[DeviceId, ...]:
        """All devices, in the order they were given."""
        return tuple(self._accounts)

    def see(self, facts: DeviceFacts, *, is_usable: bool = True) -> None:
        """Learn of a device, or of its new size. One that is not usable has no room at all."""
        limits = self._limits_of(facts)
        capacity_bytes = limits.capacity_bytes if is_usable else 0
        account = self._accounts.setdefault(facts.device, _Account(0, 0))
        account.capacity_bytes, account.headroom_bytes = capacity_bytes, limits.headroom_bytes

    def lose(self, device: DeviceId) -> None:
        """Forget a device and all that was held there."""
        self._accounts.pop(device, None)

    def held_by(self, holder: Hashable) -> dict[DeviceId, int]:
        """Return what *holder* holds of each device."""
        return {
            device: account.reserved[holder]
            for device, account in self._accounts.items()
            if holder in account.reserved
        }

    def ceiling_bytes(self, device: DeviceId) -> int:
        """Return what could be free if no runner of ours were there."""
        account = self._accounts[device]
        return max(account.capacity_bytes - account.headroom_bytes - account.others_bytes, 0)

    def free_bytes(self, device: DeviceId) -> int:
        """Return what may be reserved now; negative when others took what we hold."""
        account = self._accounts[device]
        reserved = sum(account.reserved.values())
        return account.capacity_bytes - account.headroom_bytes - account.others_bytes - reserved

    def free(self) -> dict[DeviceId, int]:
        """Return what may be reserved now on each device."""
        return {device: self.free_bytes(device) for device in self._accounts}

    def ceilings(self) -> dict[DeviceId, int]:
        """Return what could be free on each device if no runner of ours were there."""
        return {device: self.ceiling_bytes(device) for device in self._accounts}

    def reserved_bytes(self, device: DeviceId) -> int:
        """Return what all our runners hold."""
        return sum(self._accounts[device].reserved.values())

    def capacity_bytes(self, device: DeviceId) -> int:
        """Return all that may be planned with, headroom included; 0 while it is not usable."""
        return self._accounts[device].capacity_bytes

    def headroom_bytes(self, device: DeviceId) -> int:
        """Return what is never planned with."""
        return self._accounts[device].headroom_bytes

    def holders(self, device: DeviceId) -> Mapping[Hashable, int]:
        """Return who holds how much of *device*."""
        return dict(self._accounts[device].reserved)

    def others_bytes(self, device: DeviceId) -> int:
        """Return what others were last seen to use."""
        return self._accounts[device].others_bytes

    def fits(self, amounts: Amounts) -> bool:
        """Return whether *amounts* may be reserved now."""
        return all(self.free_bytes(device) >= n_bytes for device, n_bytes in amounts.items())

    def reserve(self, holder: Hashable, amounts: Amounts) -> None:
        """Reserve *amounts*. Raises ProtocolBroken when they do not fit: ask `fits` first."""
        if not self.fits(amounts):
            raise ProtocolBroken(f"reserving {dict(amounts)} for {holder}, which does not fit")
        for device, n_bytes in amounts.items():
            self._accounts[device].reserved[holder] = n_bytes

    def correct(self, holder: Hashable, amounts: Amounts, own_bytes: Amounts) -> None:
        """Replace an estimate by what was measured.

        *amounts* is what to hold; *own_bytes* the part of it that readings count as in use
        (mapped files are not: the system counts them as available).
        """
        for device, n_bytes in amounts.items():
            account = self._accounts.get(device)
            if account is not None and holder in account.reserved:
                account.reserved[holder] = n_bytes
                account.measured[holder] = own_bytes.get(device, 0)

    def release(self, holder: Hashable) -> None:
        """Give back whatever *holder* holds. Idempotent."""
        for account in self._accounts.values():
            account.reserved.pop(holder, None)
            account.measured.pop(holder, None)

    def take_reading(self, reading: DeviceReading, own_bytes: int | None = None) -> None:
        """Learn what others use.

        *own_bytes* is what our own processes use of the device, as seen together with the reading.
        Without it, what loads measured is taken: then only to be called while no runner of ours
        comes or goes.
        """
        account = self._accounts.get(reading.device)
        if account is not None:
            ours = sum(account.measured.values()) if own_bytes is None else own_bytes
            account.others_bytes = max(reading.used_bytes - ours, 0)

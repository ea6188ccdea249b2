"""The budget of each device. Pure bookkeeping, with an invariant that can be checked.

Free is capacity, less headroom, less what others use, less our reservations. What others use is
what a reading shows in use less what our own runners were measured to use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Mapping

from ollamad.errors import ProtocolBroken
from ollamad.gpu.devices import DeviceFacts, DeviceId, DeviceReading

Amounts = Mapping[DeviceId, int]
"""Bytes by device."""


@dataclasses.dataclass(slots=True)
class _Account:
    capacity_bytes: int
    headroom_bytes: int
    others_bytes: int = 0
    reserved: dict[Hashable, int] = dataclasses.field(default_factory=dict)
    measured: dict[Hashable, int] = dataclasses.field(default_factory=dict)


class Budget:
    """Who holds how much of which device."""

    def __init__(
        self, devices: Iterable[DeviceFacts], headroom_bytes: Mapping[DeviceId, int]
    ) -> None:
        self._headroom_bytes = dict(headroom_bytes)
        self._accounts: dict[DeviceId, _Account] = {}
        for facts in devices:
            self.see(facts)

    @property
    def devices(self) -> tuple[DeviceId, ...]:
        """All devices, in the order they were given."""
        return tuple(self._accounts)

    def see(self, facts: DeviceFacts, *, is_usable: bool = True) -> None:
        """Learn of a device, or of its new size. One that is not usable has no room at all."""
        capacity_bytes = facts.capacity_bytes if is_usable else 0
        if (account := self._accounts.get(facts.device)) is not None:
            account.capacity_bytes = capacity_bytes
            return
        headroom_bytes = self._headroom_bytes.get(facts.device, 0)
        self._accounts[facts.device] = _Account(capacity_bytes, headroom_bytes)

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
        """Return all that may ever be planned with, headroom included; 0 if it is not usable."""
        return self._accounts[device].capacity_bytes

    def headroom_bytes(self, device: DeviceId) -> int:
        """Return what is never planned with."""
        return self._accounts[device].headroom_bytes

    def others_bytes(self, device: DeviceId) -> int:
        """Return what others were last seen to use."""
        return self._accounts[device].others_bytes

    def fits(self, amounts: Amounts) -> bool:
        """Return whether *amounts* may be reserved now."""
        return all(self.free_bytes(device) >= n_bytes for device, n_bytes in amounts.items())

    def could_fit(self, amounts: Amounts) -> bool:
        """Return whether *amounts* would fit if no runner of ours were there."""
        return all(self.ceiling_bytes(device) >= n_bytes for device, n_bytes in amounts.items())

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

    def take_reading(self, reading: DeviceReading) -> None:
        """Learn what others use. Only to be called while no runner of ours comes or goes."""
        account = self._accounts.get(reading.device)
        if account is not None:
            account.others_bytes = max(reading.used_bytes - sum(account.measured.values()), 0)

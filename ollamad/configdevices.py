"""Kinds of settings that name devices: lists of them, and shares of their memory by device.

A device is called by its UUID, by the index that the driver's tools show, or `host`.
"""

from __future__ import annotations

import re
from typing import Final

from ollamad import configvalue as kinds
from ollamad.configvalue import ValueKind, quoted
from ollamad.deviceshare import PERCENT_MAX, DeviceShare, DeviceShares

DEVICES_MAX: Final = 256
"""Devices that a setting can name: more than any machine has."""
NAME_CHARS_MAX: Final = 128

_NAME: Final = re.compile(r"host|\d{1,4}|(?:GPU|MIG)-[A-Za-z0-9/-]+", re.ASCII)
_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d+)?) ?%", re.ASCII)


def _read_name(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and len(value) <= NAME_CHARS_MAX and _NAME.fullmatch(value):
        return value
    raise ValueError(
        f"must name devices by UUID (GPU-… or MIG-…), by index or as host, not {quoted(value)}"
    )


def _read_devices(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > DEVICES_MAX:
        raise ValueError(f"must be a list of at most {DEVICES_MAX} devices, not {quoted(value)}")
    return tuple(map(_read_name, value))


def _read_share(value: object) -> DeviceShare:
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value.strip())):
        percent = float(found[1])
        if percent > PERCENT_MAX:
            raise ValueError(f"has more than 100 percent: {quoted(value)}")
        return DeviceShare(percent=percent)
    return DeviceShare(n_bytes=kinds.BYTES.read(value))


def _read_shares(value: object) -> DeviceShares:
    if not isinstance(value, dict) or len(value) > DEVICES_MAX:
        raise ValueError(
            f"must be a table of at most {DEVICES_MAX} devices, such as {{ host = "
            f'"50%", 0 = "20GiB" }}, not {quoted(value)}'
        )
    return DeviceShares(tuple((_read_name(name), _read_share(value[name])) for name in value))


def _show_shares(shares: DeviceShares) -> object:
    return {
        name: f"{share.percent:g}%"
        if share.percent is not None
        else kinds.BYTES.show(share.n_bytes)
        for name, share in shares.by_name
    }


DEVICES: Final = ValueKind(
    expects='a list of devices: UUIDs, indexes, or `"host"`', read=_read_devices, show=list
)
DEVICE_SHARES: Final = ValueKind(
    expects='a table from devices (UUID, index, or `host`) to bytes, an amount such as `"20GiB"`, '
    'or a share such as `"80%"`',
    read=_read_shares,
    show=_show_shares,
)

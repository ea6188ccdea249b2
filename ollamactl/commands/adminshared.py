"""What the admin commands share: the socket's option, the client, and how values look."""

from __future__ import annotations

import json
import os
from typing import Any, Final

import click

from ollamactl.admin import READ_TIMEOUT_S, AdminClient, find_socket
from ollamactl.errors import CtlError
from ollamactl.helptext import ADMIN_VARIABLE
from ollamactl.listing import UNKNOWN
from ollamactl.wire import JsonObject
from ollamad.adminwire import Device, Runner, Waiting
from ollamad.units import GIB

ENVIRONMENT: Final = (ADMIN_VARIABLE,)
"""The section on variables in every admin command's help."""

socket_option = click.option(
    "--socket",
    "socket_path",
    metavar="PATH",
    help="The daemon's admin socket.  [default: looked for]",
)


def administered(socket_path: str | None) -> AdminClient:
    """Return a client of the daemon on this machine. Raises CannotConnect."""
    return AdminClient(find_socket(socket_path, os.environ))


def ask(
    socket_path: str | None,
    method: str,
    *,
    timeout_s: float | None = READ_TIMEOUT_S,
    **parameters: object,
) -> JsonObject:
    """Return what the daemon on this machine answers to one call, as it came.

    Raises CannotConnect, AdminRefused, and other CtlErrors.
    """
    with administered(socket_path) as client:
        return client.call(method, timeout_s=timeout_s, **parameters)


def load_options(pairs: tuple[str, ...]) -> dict[str, Any] | None:
    """Return options from texts such as `num_ctx=8192`: values are JSON, or else plain text.

    Any: each option has its own type. Raises CtlError.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CtlError(f"write an option as NAME=VALUE, such as num_ctx=8192, not '{pair}'")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options or None


def device_label(device: Device) -> str:
    """Return a device's short name for people: `host`, `GPU 0`, `MIG 1`."""
    if device.index is None:
        return device.device
    return f"{'MIG' if device.parent else 'GPU'} {device.index}"


def used_cell(device: Device) -> str:
    """Return how much of a device is in use, by us and by others: `5.0/24.0 GiB`."""
    used_gib = (device.others_bytes + device.reserved_bytes) / GIB
    return f"{used_gib:.1f}/{device.capacity_bytes / GIB:.1f} GiB"


def expires_cell(runner: Runner) -> str:
    """Return when a runner leaves."""
    if runner.is_pinned:
        return "pinned"
    if runner.requests:
        return "in use"
    return span(runner.expires_in_s) if runner.expires_in_s is not None else "never"


def state_words(runner: Runner) -> str:
    """Return a runner's state, with how far its load is."""
    if runner.state == "loading":
        return f"loading {runner.progress:.0%}"
    return runner.state.value


def speed_cell(tokens_per_s: float) -> str:
    """Return a rate in tokens a second."""
    return f"{tokens_per_s:,.1f}" if tokens_per_s else UNKNOWN


def waits_cell(waiting: Waiting) -> str:
    """Return what a request waits for."""
    return waiting.waits_for or UNKNOWN


def span(seconds: float) -> str:
    """Return a length of time for people, in whole units: `8s`, `4m05s`, `3h02m`, `2d5h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h"

"""`Notifier`: what the daemon tells systemd about itself. The one importer of sdnotify.

Without `NOTIFY_SOCKET`, and so outside a service, everything here does nothing. When to tell what
is for `ollamad.app`.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

import sdnotify

from ollamad.log import get_logger

STATUS_CHARS_MAX: Final = 500
"""Characters of a status; `systemctl status` shows it on one line."""
SEND_TIMEOUT_S: Final = 0.5
"""How long a notification may hold up the daemon while the service manager is busy."""

log = get_logger(__name__)


class Notifier:
    """Tells the service manager how the service is; reads the environment when it is made.

    A notification that cannot be sent is logged: the daemon goes on without a service manager.
    """

    def __init__(self) -> None:
        self._sender: sdnotify.SystemdNotifier | None = None
        self.watchdog_period_s: float | None = _watchdog_period_s()
        """How often `watchdog` has to be called (half of what systemd waits); `None` is never."""
        path = os.environ.get("NOTIFY_SOCKET")
        if not path:
            return
        try:
            sender = sdnotify.SystemdNotifier(debug=True)  # Else it hides failures to connect.
        except OSError as exc:
            log.warning("cannot reach the service manager", socket=path, error=exc)
            return
        sender.socket.settimeout(SEND_TIMEOUT_S)
        self._sender = sender

    def ready(self) -> None:
        """Tell that requests are served: after the start, and after a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Tell that the configuration is read again; `ready` ends that."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        """Tell that the daemon is about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        # A line break would start another assignment.
        self._send("STATUS=" + " ".join(text.split())[:STATUS_CHARS_MAX])

    def extend_timeout(self, seconds: float) -> None:
        """Ask for *seconds* from now for the start or stop that is under way."""
        self._send(f"EXTEND_TIMEOUT_USEC={max(0, round(seconds * 1e6))}")

    def watchdog(self) -> None:
        """Tell that the daemon is alive."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; later notifications do nothing."""
        if self._sender is not None:
            self._sender.socket.close()
            self._sender = None

    def _send(self, state: str) -> None:
        if self._sender is None:
            return
        # sdnotify writes Latin-1 and systemd reads UTF-8: hand it the characters whose Latin-1
        # bytes are the UTF-8 ones.
        latin = state.encode("utf-8", "backslashreplace").decode("latin-1")
        try:
            self._sender.notify(latin)
        except OSError as exc:
            log.warning("cannot notify the service manager", state=state, error=exc)


def _watchdog_period_s() -> float | None:
    """Return half of the watchdog's patience, if systemd set one for this very process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        microseconds = int(os.environ.get("WATCHDOG_USEC", ""))
        return microseconds / 2e6 if microseconds > 0 else None
    return None

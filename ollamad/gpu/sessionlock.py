"""`SessionLock`: many use a session at the same time, one renews it, nobody waits for ever.

For plain threads. A session must not be closed under a call that is still in it, and a call in a
driver may hang: then renewing fails after a while, instead of hanging, too.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class SessionBusy(Exception):
    """The lock could not be had in time, because a call that has it does not return."""


class SessionLock:
    """Shared by those who use the session, exclusive for who renews it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_users = 0
        self._is_renewing = False

    @contextlib.contextmanager
    def using(self, patience_s: float) -> Iterator[None]:
        """Use the session for the block. Raises SessionBusy if it is renewed for longer."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._is_renewing, patience_s):
                raise SessionBusy("starting a session with the driver takes too long")
            self._n_users += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_users -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def renewing(self, patience_s: float) -> Iterator[None]:
        """Have the session alone for the block. Raises SessionBusy if somebody stays in it."""
        with self._changed:
            if not self._changed.wait_for(self._is_free, patience_s):
                raise SessionBusy("an earlier call to the driver has not returned")
            self._is_renewing = True
        try:
            yield
        finally:
            with self._changed:
                self._is_renewing = False
                self._changed.notify_all()

    def _is_free(self) -> bool:
        return self._n_users == 0 and not self._is_renewing

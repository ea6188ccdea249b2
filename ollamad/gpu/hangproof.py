"""Calls that may never return, made in threads that can be done without.

A thread that hangs in a driver cannot be ended. It is left behind, counted, and no more than a few
may be: after that nothing is asked until one of them comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import trio

HUNG_MAX: Final = 4
"""Threads that may hang at the same time. Each holds its stack, and a core if it spins."""

T = TypeVar("T")


class CallHung(Exception):
    """A call did not return in time, or too many have not; what it asked for is unknown."""


class Calls(Protocol):
    """A way to make calls that may hang."""

    @property
    def n_hung(self) -> int:
        """Calls that were given up and have not returned."""
        ...

    async def call(self, function: Callable[[], T], *, within_s: float) -> T:
        """Return what *function* returns. Raises CallHung after *within_s*, and what it raises."""
        ...


class ThreadCalls:
    """Makes each call in a thread of Trio's, which is abandoned when the call takes too long."""

    def __init__(
        self, on_return: Callable[[], None] = lambda: None, *, hung_max: int = HUNG_MAX
    ) -> None:
        """*on_return* is called, in Trio's thread, when a call that was given up has returned."""
        self._on_return = on_return
        self._hung_max = hung_max
        self._n_hung = 0
        # One more than may hang: two calls may be under way when only one more may hang.
        self._limiter = trio.CapacityLimiter(hung_max + 1)

    @property
    def n_hung(self) -> int:
        """Calls that were given up and have not returned."""
        return self._n_hung

    async def call(self, function: Callable[[], T], *, within_s: float) -> T:
        """Return what *function* returns, which it computes in a thread.

        Cancellation: the thread is left alone, and counts as hung until it ends.
        Raises CallHung after *within_s*, or at once while as many hang as may.
        """
        if self._n_hung >= self._hung_max:
            raise CallHung(f"{self._n_hung} calls have not returned")
        token = trio.lowlevel.current_trio_token()
        is_over = False  # The call returned, or nobody waits for it any more.

        def returned() -> None:
            nonlocal is_over
            if is_over:
                self._n_hung -= 1
                self._on_return()
            is_over = True

        def in_thread() -> T:
            try:
                return function()
            finally:
                _tell(token, returned)

        try:
            with trio.move_on_after(within_s):
                return await trio.to_thread.run_sync(
                    in_thread, limiter=self._limiter, abandon_on_cancel=True
                )
        finally:
            if not is_over:
                self._n_hung += 1
            is_over = True
        raise CallHung(f"no answer within {within_s:g} s")


def _tell(token: trio.lowlevel.TrioToken, function: Callable[[], None]) -> None:
    try:
        token.run_sync_soon(function)
    except trio.RunFinishedError:
        return  # Trio ended while the call hung: nobody counts any more.

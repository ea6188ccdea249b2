"""`Bulletin`: what happens, told to whoever has subscribed, without waiting for anybody.

The kernel's notes come through here on their way to the log. A publisher never waits and a slow
reader costs a bounded buffer: the oldest entries make room, and their number is told with the next
one that is read. What an entry means to a client is the doors' business.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import trio

from ollamad.supervisor.commands import Note
from ollamad.wallclock import WallClock

ENTRIES_KEPT_MAX: Final = 256
"""Entries that wait for one subscriber. Enough for a burst of loads; a reader that is further
behind will not catch up by itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened, and when."""

    at: datetime
    note: Note


class Subscription:
    """What one reader has not read yet."""

    def __init__(self, *, kept_max: int = ENTRIES_KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._entries: deque[Entry] = deque()
        self._missed = 0
        self._changed = trio.Event()

    def put(self, entry: Entry) -> None:
        """Keep *entry*, and lose the oldest one if there is no room. Never waits."""
        if len(self._entries) >= self._kept_max:
            self._entries.popleft()
            self._missed += 1
        self._entries.append(entry)
        self._changed.set()

    async def take(self) -> tuple[Entry, int]:
        """Return the next entry, and how many were lost before it.

        A checkpoint, also when there is one. Cancellation loses nothing.
        """
        await trio.lowlevel.checkpoint()
        while not self._entries:
            self._changed = trio.Event()
            await self._changed.wait()
        missed, self._missed = self._missed, 0
        return self._entries.popleft(), missed


class Bulletin:
    """Tells every subscriber what is published."""

    def __init__(self, clock: WallClock) -> None:
        self._clock = clock
        self._subscriptions: set[Subscription] = set()

    @property
    def n_subscribers(self) -> int:
        """How many listen. They bound what is kept: each has a buffer of its own."""
        return len(self._subscriptions)

    def publish(self, note: Note) -> None:
        """Tell everybody who listens. Never waits."""
        if not self._subscriptions:
            return
        entry = Entry(self._clock.now(), note)
        for subscription in self._subscriptions:
            subscription.put(entry)

    @contextlib.contextmanager
    def subscribed(self) -> Iterator[Subscription]:
        """Listen for the time of the block."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

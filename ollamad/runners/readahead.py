"""`ReadAhead`: asks the kernel to read a model's file while its runner still starts.

A runner maps its file a moment later and finds it in memory, or on its way. Only advice: the
kernel may ignore it, and nobody waits for it or for its errors.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Final

import trio

from ollamad.units import MIB, format_bytes

CHUNK_BYTES: Final = 8 * MIB
"""How much one call asks for: between two calls a reading that nobody needs any more ends."""
WORTHWHILE_BYTES: Final = 16 * MIB
"""A smaller file is read before its runner has looked at it."""
AVAILABLE_SHARE: Final = 0.5
"""At most this part of the available memory is filled, so that others' files stay cached."""

_log = logging.getLogger(__name__)


class ReadAhead:
    """Reads files into the page cache, in a thread of its own."""

    def __init__(self, available_bytes: Callable[[], int]) -> None:
        """*available_bytes* is asked in that thread."""
        self._available_bytes = available_bytes
        # A thread that a dead network disk holds must not be joined by one more for each load.
        self._limiter = trio.CapacityLimiter(1)

    async def read(self, paths: Iterable[str]) -> None:
        """Have *paths* read, in this order, as far as memory goes. Never raises for a file's fault.

        Cancellation: the thread is left alone; it ends with its current chunk.
        """
        given_up = threading.Event()
        try:
            await trio.to_thread.run_sync(
                self._advise_all,
                tuple(paths),
                given_up,
                limiter=self._limiter,
                abandon_on_cancel=True,
            )
        finally:
            given_up.set()

    def _advise_all(self, paths: tuple[str, ...], given_up: threading.Event) -> None:
        try:
            room_bytes = int(self._available_bytes() * AVAILABLE_SHARE)
            for path in paths:
                n_bytes = _advise(path, room_bytes, given_up)
                room_bytes -= n_bytes
                if n_bytes:
                    _log.debug(f"reading ahead {format_bytes(n_bytes)} of {path}")
        except OSError as exc:
            _log.debug(f"cannot read ahead: {exc}")


def _advise(path: str, room_bytes: int, given_up: threading.Event) -> int:
    """Ask for what of *path* is not in memory yet, and return how much that is."""
    # Not blocking, for what is no regular file: opening a pipe would wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.fstat(descriptor).st_size
        advised = 0
        if size < WORTHWHILE_BYTES:
            return 0
        for offset in range(0, size, CHUNK_BYTES):
            length = min(CHUNK_BYTES, size - offset)
            if given_up.is_set() or advised + length > room_bytes:
                break
            if not is_cached(descriptor, offset + length - 1):
                os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)
                advised += length
        return advised
    finally:
        os.close(descriptor)


def is_cached(descriptor: int, offset: int) -> bool:
    """Return whether the byte at *offset* can be read without a disk."""
    try:
        return bool(os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT))
    except OSError as exc:
        if exc.errno in {errno.EAGAIN, errno.EOPNOTSUPP}:  # Not there, or the disk cannot tell.
            return False
        raise

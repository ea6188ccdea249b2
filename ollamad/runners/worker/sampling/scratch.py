"""Room for numbers that nobody keeps, as large as a vocabulary.

A fresh megabyte for each token would be asked of the kernel and given back each time, page by
page, which takes longer than to compute what goes into it.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
import numpy.typing as npt

_KEPT_MAX: Final = 8
"""Pieces of room kept for a thread: a worker has one vocabulary, and uses two."""


class _Rooms(threading.local):
    """A thread's own."""

    def __init__(self) -> None:
        self.by_key: dict[tuple[str, int], npt.NDArray[np.float32]] = {}


_rooms: Final = _Rooms()


def scratch(use: str, size: int) -> npt.NDArray[np.float32]:
    """Return room for *size* numbers, with anything in it.

    It belongs to the caller until this thread asks again for the same *use* and size.
    """
    rooms = _rooms.by_key
    room = rooms.get((use, size))
    if room is None:
        if len(rooms) >= _KEPT_MAX:
            rooms.clear()
        room = rooms[use, size] = np.empty(size, dtype=np.float32)
    return room

"""What loads and dry runs have taught about demands, so that the next estimate is exact.

Pure and bounded; kept in memory only. A load teaches for nothing what a file would have kept, a dry
run costs a fifth of a second, and what a build of the engine says is true of that build alone: it
changes with the daemon.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

from ollamad.buffersizes import BufferSizes
from ollamad.gpu.estimate import MemoryDemand

ENTRIES_MAX: Final = 256
"""Models with options that are remembered; the least recently used is forgotten first."""
FACTOR_MIN: Final = 0.5
FACTOR_MAX: Final = 2.0
"""Margins beyond these would be a mistake of ours, not one of an estimate."""

V = TypeVar("V")


class _Recent(Generic[V]):
    """A table that forgets what was not used for longest."""

    def __init__(self, entries_max: int) -> None:
        self._entries: OrderedDict[str, V] = OrderedDict()
        self._entries_max = entries_max

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: str, value: V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def get(self, key: str) -> V | None:
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)


class MarginBook:
    """By how much estimates missed what was measured, for weights and for their options."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._factors: _Recent[float] = _Recent(entries_max)

    def __len__(self) -> int:
        return len(self._factors)

    def record(self, weights: str, options: str, *, predicted: int, measured: int) -> None:
        """Learn from a load. *predicted* and *measured* are bytes of all but the weights."""
        if predicted <= 0:
            return
        self._note(weights, options, measured / predicted)

    def factor(self, weights: str, options: str) -> float:
        """Return what to multiply an estimate with.

        1. The same weights with the same options: what was seen.
        2. The same weights with others: what was seen last.
        3. Else nothing is known, and the estimate stands.
        """
        known = self._factors.get(options)
        if known is None:
            known = self._factors.get(weights)
        return 1.0 if known is None else known

    def _note(self, weights: str, options: str, factor: float) -> None:
        bounded = min(max(factor, FACTOR_MIN), FACTOR_MAX)
        self._factors.put(weights, bounded)
        self._factors.put(options, bounded)


class LearnedDemand:
    """The book that plans are made with. Keys are texts; those of options name the weights, too."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._buffers: _Recent[BufferSizes] = _Recent(entries_max)
        self.margins: Final = MarginBook(entries_max)

    def __len__(self) -> int:
        return len(self._buffers)

    def note_buffers(self, options: str, sizes: BufferSizes) -> None:
        """Remember what the engine says of its buffers."""
        self._buffers.put(options, sizes)

    def buffers(self, options: str) -> BufferSizes | None:
        """Return what the engine said of its buffers; `None` if it was never asked."""
        return self._buffers.get(options)

    def applied(self, weights: str, options: str, demand: MemoryDemand) -> MemoryDemand:
        """Return *demand* with everything that is known."""
        sizes = self._buffers.get(options)
        known = demand if sizes is None else demand.corrected(sizes)
        return known.with_margin(self.margins.factor(weights, options))

    def learn(
        self,
        weights: str,
        options: str,
        demand: MemoryDemand,
        *,
        held_bytes: int,
        sizes: BufferSizes | None,
    ) -> None:
        """Learn from a load into main memory: *demand* was reserved, *held_bytes* were measured."""
        known = demand.with_margin(1.0)
        if sizes is not None:
            self.note_buffers(options, sizes)
            known = known.corrected(sizes)
        weights_bytes = known.weights_bytes + known.extra_bytes
        self.margins.record(
            weights,
            options,
            predicted=known.total_bytes - weights_bytes,
            measured=held_bytes - weights_bytes,
        )

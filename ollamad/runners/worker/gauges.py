"""What the engine does, in numbers, for whoever looks from another thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from ollamad.runners.protocol import EngineGauges, Timings
from ollamad.runners.worker.generation import Generation
from ollamad.runners.worker.prefixcache import PrefixCache

LOOK_PERIOD_S: Final = 0.5
"""How often cells are counted while there is work. Counting walks the tree of beginnings."""


class GaugeBoard:
    """Counts as the engine works, and shows a frozen picture now and then."""

    def __init__(self, cache: PrefixCache, n_cells: int) -> None:
        self._cache = cache
        self._n_cells = n_cells
        self._steps = 0
        self._step_s = 0.0
        self._batch_tokens = 0
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._generated_tokens = 0
        self._forced_tokens = 0
        self._looked_at = 0.0
        self.gauges = EngineGauges(kv_cells=n_cells)
        """The last picture. Replaced whole, so any thread may read it."""

    def note_step(self, n_tokens: int, took_s: float) -> None:
        """A batch was computed."""
        self._steps += 1
        self._batch_tokens += n_tokens
        self._step_s += took_s

    def note_answer(self, n_tokens: int, n_forced: int) -> None:
        """Tokens were generated."""
        self._generated_tokens += n_tokens
        self._forced_tokens += n_forced

    def note_end(self, timings: Timings) -> None:
        """A request ended."""
        self._prompt_tokens += timings.prompt_tokens
        self._cached_tokens += timings.cached_tokens

    def look(self, running: Sequence[Generation], n_waiting: int, *, is_due: bool) -> None:
        """Make a new picture if the last one is old, or if it *is_due*."""
        now = time.monotonic()
        if not is_due and now < self._looked_at + LOOK_PERIOD_S:
            return
        self._looked_at = now
        self.gauges = EngineGauges(
            slots_busy=len(running),
            waiting=n_waiting,
            kv_cells=self._n_cells,
            kv_used=self._cache.n_used,
            kv_shared=self._cache.count_shared(),
            idle_sequences=self._cache.n_idle,
            steps=self._steps,
            step_s=self._step_s,
            batch_tokens=self._batch_tokens,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            generated_tokens=self._generated_tokens,
            forced_tokens=self._forced_tokens,
        )

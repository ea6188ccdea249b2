"""Penalties for tokens that the last ones have among them: repeat, frequency and presence."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ollamad.options import SamplingOptions
from ollamad.runners.worker.sampling.edits import Change

_ROOM: int = 64


class Penalties:
    """Counts the last tokens and lowers the logits of those it has counted.

    The counts are kept up to date token by token: to count a whole context anew for each choice
    would cost more than the choice.
    """

    def __init__(self, options: SamplingOptions, history: Sequence[int]) -> None:
        self._repeat = np.float32(options.repeat_penalty)
        self._frequency = np.float32(options.frequency_penalty)
        self._presence = np.float32(options.presence_penalty)
        last_n = options.repeat_last_n
        self._window: deque[int] | None = deque() if last_n >= 0 else None
        """The tokens counted, oldest first; none where all are and stay so."""
        self._last_n = last_n
        self._places: dict[int, int] = {}
        """Where a token's count is in the arrays."""
        self._tokens = np.empty(_ROOM, dtype=np.intp)
        self._counts = np.empty(_ROOM, dtype=np.float32)
        for token in history if last_n < 0 else history[-last_n:]:
            self.accept(token)

    @staticmethod
    def is_on(options: SamplingOptions) -> bool:
        """Return whether *options* ask for any of them."""
        return options.repeat_last_n != 0 and (
            options.repeat_penalty != 1.0
            or options.frequency_penalty != 0.0
            or options.presence_penalty != 0.0
        )

    def accept(self, token: int) -> None:
        """See Editor."""
        place = self._places.get(token)
        if place is None:
            self._add(token)
        else:
            self._counts[place] += 1
        if self._window is None:
            return
        self._window.append(token)
        if len(self._window) > self._last_n:
            self._forget(self._window.popleft())

    def _add(self, token: int) -> None:
        place = len(self._places)
        if place == len(self._tokens):
            self._tokens = np.resize(self._tokens, 2 * place)
            self._counts = np.resize(self._counts, 2 * place)
        self._places[token] = place
        self._tokens[place] = token
        self._counts[place] = 1

    def _forget(self, token: int) -> None:
        place = self._places[token]
        self._counts[place] -= 1
        if self._counts[place]:
            return
        # The last one moves into the gap.
        del self._places[token]
        last = len(self._places)
        if place != last:
            moved = int(self._tokens[last])
            self._places[moved] = place
            self._tokens[place] = moved
            self._counts[place] = self._counts[last]

    def change(self, logits: npt.NDArray[np.float32]) -> Change:
        """See Editor."""
        count = len(self._places)
        tokens, counts = self._tokens[:count], self._counts[:count]
        values = logits[tokens]
        if self._repeat != 1:
            # Divided, a negative logit would become likelier.
            values = np.where(values <= 0, values * self._repeat, values / self._repeat)
        values -= counts * self._frequency + self._presence
        return tokens, values

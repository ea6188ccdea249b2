"""How many sequences a context has: what the worker makes, and what the daemon plans for."""

from __future__ import annotations

from typing import Final

SEQUENCES_MAX: Final = 256
"""llama.cpp's own limit."""
IDLE_SEQUENCES: Final = 24
"""Sequences beyond one a slot, for texts that are kept. Each costs a row of logits in memory, and
llama.cpp's checks of a batch take time with the square of all."""
STATES_EXTRA: Final = 4
"""Running states beyond one a slot, of models that have them: for idle texts. Each costs memory."""
WINDOWS_PER_SLOT: Final = 2
"""Windows that layers with a window have room for, where they are not roomy: one for a slot's
request, one for an idle text."""


def n_sequences(n_slots: int, n_batch: int, *, has_states: bool, has_small_windows: bool) -> int:
    """Return the sequences of a context that generates for *n_slots* requests at once.

    *has_small_windows* is said of a model with windows whose layers keep no more than those.
    """
    if has_states:
        wanted = n_slots + STATES_EXTRA
    elif has_small_windows:
        wanted = n_slots * WINDOWS_PER_SLOT
    else:
        wanted = n_slots + IDLE_SEQUENCES
    # Fewer tokens in a batch than sequences would end the process in a failed assertion.
    return min(wanted, n_batch, SEQUENCES_MAX)

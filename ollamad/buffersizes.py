"""`BufferSizes`: what an engine allocates for a model beside its weights, in bytes.

The engine says it itself, in a real load as in a dry run; the daemon plans with it.
"""

from __future__ import annotations

from typing import Final

import msgspec

GRAMMAR_TOKEN_BYTES: Final = 425
"""What an engine that generates takes for each token of the vocabulary when it first has time, or a
grammar to keep to (measured: 20 MiB for 49 thousand tokens, 106 MiB for 262 thousand)."""


class BufferSizes(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of an engine's buffers. What is not known is 0."""

    context_bytes: int = 0
    """What the context keeps, on all devices: keys and values, running states."""
    compute_bytes: int = 0
    """Room for the largest step, in main memory."""
    device_compute_bytes: int = 0
    """Room for the largest step on the device that has the most; 0 without devices."""
    output_bytes: int = 0
    """Results that are copied out, in main memory."""

"""Token ids as numpy arrays, and the one question asked of two of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]
"""Token ids of a text, from its beginning."""


def tokens_of(ids: Iterable[int]) -> Tokens:
    """Return *ids* as an array."""
    return np.fromiter(ids, dtype=np.int32)


def common_prefix(left: Tokens, right: Tokens) -> int:
    """Return how many first tokens both have in common."""
    shorter = min(len(left), len(right))
    differs = left[:shorter] != right[:shorter]
    at = int(differs.argmax()) if shorter else 0
    return at if shorter and differs[at] else shorter

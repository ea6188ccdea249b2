"""Cuts a stream of bytes at any positions, as networks and tokenizers do."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

POSITION_MAX = 400


def splits() -> st.SearchStrategy[list[int]]:
    """Return positions to cut at; those beyond the end cut nothing, equal ones empty pieces."""
    return st.lists(st.integers(min_value=0, max_value=POSITION_MAX), max_size=24)


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return *data* in pieces."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[left:right] for left, right in itertools.pairwise(edges)]

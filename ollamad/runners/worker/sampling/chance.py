"""Randomness as a pure function of seed, position and purpose.

There is no generator whose state advances. So an answer with a seed is the same whoever else is
in the batch, choosing again changes nothing, and a stream that another runner continues at some
position draws what the first would have drawn. What we gave up: the numbers are not those of
llama.cpp's Mersenne Twister, so a seed means another answer there.
"""

from __future__ import annotations

import enum
from typing import Final

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_TO_UNIT: Final = 2.0**-53


class Purpose(enum.IntEnum):
    """What a number is for. Numbers of different purposes are independent."""

    DRAW = 1
    XTC = 2


class Chance:
    """The random numbers of one seed."""

    __slots__ = ("_key",)

    def __init__(self, seed: int) -> None:
        """Take any whole *seed*; those equal modulo 2**64 are one."""
        self._key = _mixed(seed & _MASK)

    def uniform(self, position: int, purpose: Purpose) -> float:
        """Return the number in [0, 1) for *purpose* at *position*."""
        return (_mixed(_mixed(self._key + position) + purpose) >> 11) * _TO_UNIT


def _mixed(value: int) -> int:
    """Return 64 bits, each of which depends on all bits of *value*: a step of SplitMix64."""
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)

"""A process's own memory is what it has touched, without the files that it maps."""

from __future__ import annotations

import os

import psutil

from ollamad.runners.procmemory import own_memory_bytes
from ollamad.units import MIB


def test_memory_of_its_own_is_counted_and_that_of_nobody_is_none() -> None:
    assert MIB < own_memory_bytes(os.getpid()) < psutil.Process().memory_info().rss
    assert own_memory_bytes(1 << 30) == 0


def test_a_process_can_ask_for_itself() -> None:
    assert abs(own_memory_bytes() - own_memory_bytes(os.getpid())) < MIB

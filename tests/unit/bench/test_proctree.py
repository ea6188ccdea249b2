from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.peers import proctree


def test_a_process_is_seen_with_its_child() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        pids = proctree.tree(os.getpid())
        assert {os.getpid(), child.pid} <= set(pids)
        assert proctree.memory_bytes(pids)["Rss"] > proctree.memory_bytes([child.pid])["Rss"]
        assert proctree.cpu_s(os.getpid()) > 0
        assert sum(proctree.wakeups(pids).values()) > 0
    finally:
        child.communicate(b"\n")


def test_a_process_that_is_gone_costs_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    assert proctree.memory_bytes([child.pid]) == {"Rss": 0, "Pss": 0}
    assert proctree.wakeups([child.pid]) == {}
    with pytest.raises(OSError, match="Invalid argument"):
        proctree.cpu_s(child.pid)


def test_cpu_time_is_that_of_the_process_alone() -> None:
    assert proctree.cpu_s(os.getpid()) == pytest.approx(time.process_time(), rel=0.05)


def test_a_thread_that_ended_takes_no_wakeups_away() -> None:
    assert proctree.grown({"1": 50, "2": 10}, {"2": 13, "3": 2}) == 5

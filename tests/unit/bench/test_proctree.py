from __future__ import annotations

import os
import subprocess
import sys

from bench.peers import proctree


def test_a_process_is_seen_with_its_child() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        pids = proctree.tree(os.getpid())
        assert {os.getpid(), child.pid} <= set(pids)
        assert proctree.memory_bytes(pids)["Rss"] > proctree.memory_bytes([child.pid])["Rss"]
        assert proctree.cpu_s(os.getpid()) > 0
        assert proctree.wakeups(pids) > 0
    finally:
        child.communicate(b"\n")


def test_a_process_that_is_gone_costs_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    assert proctree.memory_bytes([child.pid]) == {"Rss": 0, "Pss": 0}
    assert proctree.wakeups([child.pid]) == 0

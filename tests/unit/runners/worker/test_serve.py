"""When a runner has nothing to do. The rest of `serve` is for tests with real processes."""

from __future__ import annotations

from typing import Any

from ollamad.runners.protocol import Cancel
from ollamad.runners.worker.serve import EngineThread


def an_engine_thread() -> EngineThread:
    unused: Any = None
    return EngineThread(unused, unused)


def test_a_runner_idles_when_no_command_comes_for_a_while() -> None:
    assert an_engine_thread()._idles(0.001)


def test_a_command_ends_the_idle_time_at_once() -> None:
    thread = an_engine_thread()
    thread.put(Cancel(1))

    assert not thread._idles(3600)

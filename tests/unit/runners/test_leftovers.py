from __future__ import annotations

import dataclasses
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ollamad.runners import leftovers
from ollamad.runners.leftovers import (
    ProcessFacts,
    daemon_mark,
    end_leftovers,
    is_leftover,
    mark_of,
    start_time,
)

GONE = 1 << 30
"""No process has this number."""


def arguments(mark: str) -> tuple[bytes, ...]:
    words = ["python", "-P", "-m", "ollamad.runners.worker", "--fd", "9", "--daemon", mark, ""]
    return tuple(word.encode() for word in words)


OURS = ProcessFacts((b"ollamad",), parent=1, uid=1000, pid_namespace="pid:[1]")
ORPHAN = dataclasses.replace(OURS, arguments=arguments(f"{GONE}:12345"))


def test_a_runner_whose_daemon_is_gone_is_a_leftover() -> None:
    assert is_leftover(ORPHAN, OURS)


def test_a_number_that_somebody_else_has_by_now_is_not_the_daemon() -> None:
    mine = os.getpid()
    started = start_time(mine)
    assert started is not None

    assert is_leftover(
        dataclasses.replace(ORPHAN, arguments=arguments(f"{mine}:{started + 1}")), OURS
    )


@pytest.mark.parametrize(
    "facts",
    [
        dataclasses.replace(ORPHAN, arguments=arguments(daemon_mark())),
        dataclasses.replace(ORPHAN, parent=GONE),
        dataclasses.replace(ORPHAN, uid=1001),
        dataclasses.replace(ORPHAN, pid_namespace="pid:[2]"),
        dataclasses.replace(ORPHAN, arguments=(b"sh", b"-c", *ORPHAN.arguments)),
        dataclasses.replace(ORPHAN, arguments=ORPHAN.arguments[:6]),
        dataclasses.replace(ORPHAN, arguments=arguments("x:1")),
        dataclasses.replace(ORPHAN, arguments=arguments("1")),
    ],
    ids=[
        "its daemon lives",
        "its parent is the daemon it names",
        "another user's",
        "in another container",
        "another program that mentions it",
        "without a mark",
        "with a mark that is none",
        "with half a mark",
    ],
)
def test_nothing_else_is(facts: ProcessFacts) -> None:
    assert not is_leftover(facts, OURS)


def test_a_mark_is_read_from_the_arguments() -> None:
    assert mark_of(arguments("12:345")) == (12, 345)
    assert mark_of(()) is None


@pytest.fixture
def stopped() -> Iterator[subprocess.Popen[bytes]]:
    """A process that will not go by itself."""
    script = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    process = subprocess.Popen([sys.executable, "-c", script])
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    yield process
    process.kill()
    process.wait()


def test_a_leftover_is_ended_though_it_is_stopped_and_others_are_not(
    stopped: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No process can be made an orphan of a daemon here without one: its arguments are supposed."""
    real = leftovers._facts

    def supposed(pid: int) -> ProcessFacts | None:
        facts = real(pid)
        if facts is None or pid != stopped.pid:
            return facts
        return dataclasses.replace(facts, arguments=arguments(f"{GONE}:1"))

    monkeypatch.setattr(leftovers, "_facts", supposed)
    with caplog.at_level(logging.WARNING):
        assert end_leftovers() == 1

    assert stopped.wait(10) == -signal.SIGKILL
    assert f"ended process {stopped.pid}" in caplog.text


def test_no_more_are_ended_than_the_limit(
    stopped: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "LEFTOVERS_MAX", 0)
    ours = os.getpid()
    monkeypatch.setattr(leftovers, "is_leftover", lambda facts, _ours: facts.parent == ours)

    assert end_leftovers() == 0
    assert stopped.poll() is None


def test_one_that_does_not_end_is_said_and_not_waited_for_longer(
    stopped: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE_S", 0.0)
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda _descriptor, _number: None)
    ours = os.getpid()
    real = leftovers._facts
    monkeypatch.setattr(
        leftovers, "_facts", lambda pid: real(pid) if pid in {ours, stopped.pid} else None
    )
    monkeypatch.setattr(leftovers, "is_leftover", lambda facts, _ours: facts.parent == ours)
    with caplog.at_level(logging.ERROR):
        assert end_leftovers() == 1

    assert "does not end" in caplog.text

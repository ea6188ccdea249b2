from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ollamad.notify import STATUS_CHARS_MAX, Notifier


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket where the service manager's would be."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield receiver


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    made = Notifier()
    yield made
    made.close()


def test_each_notification_is_one_datagram(manager: socket.socket, notifier: Notifier) -> None:
    notifier.ready()
    notifier.watchdog()
    notifier.extend_timeout(2.5)
    notifier.stopping()

    assert [manager.recv(1000) for _ in range(4)] == [
        b"READY=1",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=2500000",
        b"STOPPING=1",
    ]


def test_a_reload_says_when_it_began(manager: socket.socket, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()

    first, second = manager.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, microseconds = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_status_is_one_bounded_line_of_utf8(manager: socket.socket, notifier: Notifier) -> None:
    notifier.status("läuft 日本\nREADY=1\0\udcff")
    notifier.status("x" * 10_000)

    assert manager.recv(1000).decode() == "STATUS=läuft 日本 READY=1\0\\udcff"
    assert len(manager.recv(1000)) == len("STATUS=") + STATUS_CHARS_MAX


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notifier = Notifier()

    notifier.ready()
    notifier.close()

    assert notifier.watchdog_period_s is None


@pytest.mark.filterwarnings("ignore:.*unclosed.*:ResourceWarning")  # sdnotify's, on a failure.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_service_manager_that_cannot_be_reached_is_logged_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nowhere"))

    Notifier().ready()

    assert [record.message for record in caplog.records] == ["cannot reach the service manager"]


def test_a_service_manager_that_has_gone_is_logged(
    manager: socket.socket, notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    manager.close()

    notifier.ready()

    assert [record.message for record in caplog.records] == ["cannot notify the service manager"]


def test_after_closing_nothing_is_sent(manager: socket.socket, notifier: Notifier) -> None:
    notifier.close()
    notifier.ready()
    notifier.close()

    with pytest.raises(BlockingIOError):
        manager.recv(1000)


@pytest.mark.parametrize(
    ("microseconds", "own", "period_s"),
    [
        ("30000000", True, 15.0),
        ("30000000", False, None),
        ("0", True, None),
        ("x", True, None),
        ("", True, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_needed(
    microseconds: str, own: bool, period_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() if own else 1))

    assert Notifier().watchdog_period_s == period_s

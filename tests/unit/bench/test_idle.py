from __future__ import annotations

import json
import os
import threading
import time

import pytest

from bench import idle


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watching takes no time, in which a thread is woken at least fifty times."""

    def work() -> None:
        for _ in range(50):
            threading.Event().wait(1e-4)

    def watch(_seconds: float) -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        work()

    monkeypatch.setattr(time, "sleep", watch)


@pytest.mark.usefixtures("busy")
def test_the_wakeups_of_a_process_are_counted_by_thread() -> None:
    row = idle.measure(os.getpid(), 2.0)[0]

    assert row.pid == os.getpid()
    assert row.wakeups_per_s >= 25
    assert sum(row.threads.values()) == pytest.approx(row.wakeups_per_s)
    assert row.rss_bytes >= row.pss_bytes > 0


@pytest.mark.usefixtures("busy")
def test_the_table_ends_with_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    assert idle.main([str(os.getpid()), "--threads"]) == 0
    assert "together" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.usefixtures("busy")
def test_the_rows_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert idle.main([str(os.getpid()), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["pid"] == os.getpid()


def test_a_process_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert idle.main([str(1 << 30)]) == 1
    assert "no process" in capsys.readouterr().err

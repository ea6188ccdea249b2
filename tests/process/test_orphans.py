"""A daemon that is killed leaves no runner; one that could not notice is ended by the next life."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.endurance.faultyworker import SAID, Point
from tests.endurance.killmatrix import CONFIG, ROOT
from tests.process.conftest import MODEL
from tests.process.daemonprocess import DaemonProcess, a_daemon

pytestmark = [pytest.mark.process, pytest.mark.model]

PATIENCE_S = 60.0


def ask(daemon: DaemonProcess, prompt: str = "hi", n: int = 1) -> None:
    body = {"model": MODEL, "prompt": prompt, "raw": True, "options": {"num_predict": n}}
    # The daemon is killed in the middle of it.
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(f"{daemon.url}/api/generate", json={**body, "stream": False}, timeout=PATIENCE_S)


@contextlib.contextmanager
def asking(daemon: DaemonProcess, prompt: str = "hi", n: int = 1) -> Iterator[None]:
    """Ask beside the block, which kills the daemon."""
    thread = threading.Thread(target=ask, args=(daemon, prompt, n))
    thread.start()
    yield
    thread.join()


def faulty(folder: Path, point: Point) -> DaemonProcess:
    """Start a daemon whose first runner stands still at *point*."""
    file = folder / "ollamad.toml"
    file.write_text(CONFIG)
    program = ("tests.endurance.faultydaemon",)
    return DaemonProcess(folder, {"PYTHONPATH": str(ROOT)}, point, str(file), program=program)


def assert_all_end(processes: list[psutil.Process]) -> None:
    # They are no children of ours: psutil waits for them all the same.
    assert processes
    assert psutil.wait_procs(processes, timeout=10)[1] == []


def test_daemon_sigkill_leaves_no_runner(tmp_path: Path) -> None:
    doomed = DaemonProcess(tmp_path, {})
    ask(doomed)
    runners = doomed.runners()

    doomed.kill()

    assert_all_end(runners)


@pytest.mark.parametrize("point", [Point.MID_LOAD, Point.BEFORE_TOKENS])
def test_nor_does_it_while_a_runner_loads_or_its_engine_hangs(tmp_path: Path, point: Point) -> None:
    doomed = faulty(tmp_path, point)
    with asking(doomed):
        doomed.wait_for_log(lambda r: SAID in r["message"])
        runners = doomed.workers()
        doomed.kill()

    assert_all_end(runners)


def test_nor_does_it_in_the_middle_of_a_long_batch(tmp_path: Path) -> None:
    doomed = DaemonProcess(tmp_path, {})
    ask(doomed)
    (runner,) = doomed.runners()
    before_s = runner.cpu_times().user
    with asking(doomed, "word " * 3000):
        while runner.cpu_times().user < before_s + 0.3:  # A batch of 512 takes longer.
            pass
        doomed.kill()

    assert_all_end([runner])


def test_a_stopped_runner_is_ended_by_the_next_daemon_and_nobody_elses_is(tmp_path: Path) -> None:
    doomed = DaemonProcess(tmp_path / "doomed", {})
    ask(doomed)
    (stopped,) = doomed.runners()
    with a_daemon(tmp_path / "beside") as beside:
        ask(beside)
        (living,) = beside.runners()
        stopped.send_signal(signal.SIGSTOP)
        doomed.kill()
        assert stopped.is_running()

        with a_daemon(tmp_path / "next") as following:
            ended = following.wait_for_log(lambda r: "a daemon that is gone" in r["message"])

        assert str(stopped.pid) in ended["message"]
        assert_all_end([stopped])
        assert living.is_running()
        ask(beside)

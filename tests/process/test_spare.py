"""The spare runner as a real process: what a pid, a pipe and a signal can show."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import psutil
import pytest
import trio

from ollamad.config import RunnerConfig
from ollamad.runners.client import LifeMessage, RunnerClient
from ollamad.runners.launch import ProcessLauncher, RunnerProcess, RunnerSpec
from ollamad.runners.protocol import Hello, Loaded, LoadPlan
from ollamad.runners.spare import SpareLauncher
from tests.process.conftest import MODEL
from tests.process.daemonprocess import DaemonProcess, a_daemon, workers_of

pytestmark = pytest.mark.process

SPEC = RunnerSpec(label="echo")
PLAN = LoadPlan(model_path="/echo", n_ctx=100, n_slots=2, n_batch=10)


async def until(fact: Callable[[], bool]) -> None:
    """Wait for a fact of the system, which announces none."""
    for _ in range(3000):
        if fact():
            return
        await trio.sleep(0.01)
    raise AssertionError("it did not become true")


@contextlib.asynccontextmanager
async def a_spare() -> AsyncIterator[SpareLauncher]:
    """Keep a spare with the echo engine, which stands by when the block begins."""
    real = ProcessLauncher(worker_arguments=("--engine", "echo"))
    spare = SpareLauncher(real, RunnerConfig())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spare.run)
        await until(lambda: spare.held_bytes > 0)
        yield spare
        nursery.cancel_scope.cancel()


def children() -> set[int]:
    """Pids of the runners that this process has."""
    return {child.pid for child in workers_of(psutil.Process())}


async def loaded(process: RunnerProcess) -> list[LifeMessage]:
    """Load the echo engine in *process*, return what it said, and end it."""
    life: list[LifeMessage] = []
    is_loaded = trio.Event()

    def take(message: LifeMessage) -> None:
        life.append(message)
        if isinstance(message, Hello):
            client.load(PLAN)
        if isinstance(message, Loaded):
            is_loaded.set()

    client = RunnerClient(process.stream, take)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        with trio.fail_after(30):
            await is_loaded.wait()
        client.shut_down()
        assert await process.wait() == 0
        await process.output.aclose()
    return life


async def test_the_process_that_stood_by_is_the_one_that_serves() -> None:
    async with a_spare() as spare:
        (standing,) = children()
        process = await spare.launch(SPEC)
        life = await loaded(process)

    assert process.pid == standing
    assert isinstance(life[0], Hello)
    assert life[0].pid == standing
    assert children() == set()


async def test_a_killed_spare_is_replaced() -> None:
    async with a_spare() as spare:
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        await until(lambda: spare.held_bytes == 0)
        await until(lambda: spare.held_bytes > 0)
        (second,) = children()
        assert second != first


def await_death_in_one_turn(pid: int) -> None:
    """Block the whole loop until a child is dead, so that nobody in it can have been told."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def test_a_spare_that_is_killed_and_asked_for_at_once_costs_no_error() -> None:
    async with a_spare() as spare:
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        await_death_in_one_turn(first)
        process = await spare.launch(SPEC)
        assert process.pid != first
        await loaded(process)


async def test_a_stopped_spare_is_killed_when_the_daemon_stops() -> None:
    config = RunnerConfig(ask_patience_s=0.1, terminate_patience_s=0.1)
    spare = SpareLauncher(ProcessLauncher(worker_arguments=("--engine", "echo")), config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spare.run)
        await until(lambda: spare.held_bytes > 0)
        (standing,) = children()
        os.kill(standing, signal.SIGSTOP)
        nursery.cancel_scope.cancel()

    assert not psutil.pid_exists(standing)


async def test_nothing_that_a_spare_opens_stays_open() -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all there is
    async with a_spare() as spare:
        await loaded(await spare.launch(SPEC))
        await until(lambda: spare.held_bytes > 0)

    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def ask(daemon: DaemonProcess) -> None:
    body = {"model": MODEL, "prompt": "hi", "stream": False, "options": {"num_predict": 1}}
    httpx.post(f"{daemon.url}/api/generate", json=body, timeout=60).raise_for_status()


@pytest.mark.model
def test_a_daemon_loads_into_its_spare_keeps_another_and_leaves_none(
    tmp_path: Path, model_file: Path
) -> None:
    with a_daemon(tmp_path) as daemon:
        spare = daemon.wait_for_spare()
        ask(daemon)
        assert [runner.pid for runner in daemon.runners()] == [spare.pid]
        another = daemon.wait_for_spare()
        assert another.pid != spare.pid
        processes = daemon.workers()

    assert len(processes) == 2
    assert psutil.wait_procs(processes, timeout=0)[1] == []


@pytest.mark.model
def test_a_killed_daemon_leaves_no_spare(tmp_path: Path, model_file: Path) -> None:
    doomed = DaemonProcess(tmp_path, {})
    spare = doomed.wait_for_spare()
    doomed.kill()

    assert psutil.wait_procs([spare], timeout=10)[1] == []


@pytest.mark.model
def test_turned_off_there_are_only_runners_with_models(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "ollamad.toml").write_text("[runner]\nspare = false\n")
    with a_daemon(tmp_path, {}, "--config", str(tmp_path / "ollamad.toml")) as daemon:
        assert daemon.workers() == []
        ask(daemon)
        assert len(daemon.workers()) == 1

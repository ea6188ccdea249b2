"""What a runner that has been taken over can still reach, tried from inside a real one."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from ollamad.runners import landlock, seccomp
from ollamad.runners.cgroup import CgroupTree
from ollamad.runners.client import LifeMessage, RunnerClient
from ollamad.runners.isolation import Isolation
from ollamad.runners.launch import ProcessLauncher, RunnerSpec
from ollamad.runners.mailbox import Mailbox
from ollamad.runners.protocol import Finished, Generate, Hello, Loaded, LoadPlan
from ollamad.runners.stopping import Patience, stop
from ollamad.runners.walls import Wall
from tests.process.hostileworker import ENGINE, MAIN

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
SPEC = RunnerSpec(label="hostile", environment={"PYTHONPATH": str(ROOT)})
PATIENCE = Patience(ask_s=10, terminate_s=10)
THREADS = (ENGINE, MAIN)
NEEDS_LANDLOCK = pytest.mark.skipif(
    landlock.abi_version() < landlock.SCOPES_ABI, reason="the kernel's Landlock is older"
)
NEEDS_SECCOMP = pytest.mark.skipif(not seccomp.is_offered(), reason="no filter of system calls")


class Hostile:
    """A runner that tries what it is told to."""

    def __init__(self, client: RunnerClient, hello: Hello, pid: int) -> None:
        self._client = client
        self.hello = hello
        self.pid = pid

    async def tries(self, attempt: str, argument: object = "-", *, thread: str = ENGINE) -> str:
        request = Generate(id=self._client.next_id(), prompt=f"{thread} {attempt} {argument}")
        mailbox = Mailbox()
        self._client.generate(request, mailbox)
        text = ""
        with trio.fail_after(30):
            while not isinstance(event := await mailbox.take(), Finished):
                text += event.text
        return text.strip()


@contextlib.asynccontextmanager
async def a_hostile(store: Path, isolation: Isolation | None = None) -> AsyncIterator[Hostile]:
    """Run a hostile runner for the model `own` of the store in *store*."""
    isolation = isolation or Isolation(models_path=store)
    launcher = ProcessLauncher(isolation, program="tests.process.hostileworker")
    process = await launcher.launch(SPEC)
    hellos: list[Hello] = []
    is_loaded = trio.Event()

    def life(message: LifeMessage) -> None:
        if isinstance(message, Hello):
            hellos.append(message)
            path = str(store / "blobs" / "own")
            client.load(LoadPlan(model_path=path, n_ctx=100, n_slots=1, n_batch=10))
        if isinstance(message, Loaded):
            is_loaded.set()

    client = RunnerClient(process.stream, life)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        with trio.fail_after(30):
            await is_loaded.wait()
        try:
            yield Hostile(client, hellos[0], process.pid)
        finally:
            await stop(process, client.shut_down, PATIENCE)
            with trio.CancelScope(shield=True):
                await process.output.aclose()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    blobs = tmp_path / "models" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "own").write_text("mine")
    (blobs / "other").write_text("somebody else's")
    return tmp_path / "models"


@NEEDS_LANDLOCK
async def test_it_reads_its_own_model_and_no_other_file(store: Path) -> None:
    secret = store.parent / "secret"
    secret.write_text("x")
    async with a_hostile(store) as hostile:
        for thread in THREADS:
            for path in (
                "/etc/passwd",
                secret,
                store / "blobs" / "other",
                f"/proc/{os.getpid()}/environ",
            ):
                assert await hostile.tries("read", path, thread=thread) in {"EACCES", "EPERM"}, path
            for folder in ("/", "/etc", "/tmp", store / "blobs", Path.home()):  # noqa: S108
                assert await hostile.tries("look", folder, thread=thread) == "EACCES", folder
            for path in (
                store / "blobs" / "own",
                "/proc/self/status",
                "/proc/meminfo",
                os.__file__,
            ):
                assert await hostile.tries("read", path, thread=thread) == "done:1", path


@NEEDS_LANDLOCK
async def test_it_writes_nothing_anywhere(store: Path) -> None:
    async with a_hostile(store) as hostile:
        for thread in THREADS:
            for path in (
                store.parent / "new",
                store / "blobs" / "new",
                ROOT / "new",
                "/dev/shm/new",  # noqa: S108
            ):
                assert await hostile.tries("write", path, thread=thread) == "EACCES", path
            own = store / "blobs" / "own"
            for attempt in ("write", "append", "remove"):
                assert await hostile.tries(attempt, own, thread=thread) == "EACCES"
            assert await hostile.tries("write", "/dev/null", thread=thread) == "done"

    assert (store / "blobs" / "own").read_text() == "mine"


@NEEDS_SECCOMP
async def test_it_reaches_nobody(store: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        async with a_hostile(store) as hostile:
            for thread in THREADS:
                port = tcp.getsockname()[1]
                assert await hostile.tries("connect", port, thread=thread) == "EPERM"
                assert await hostile.tries("listen", thread=thread) == "EPERM"
                unix_path = tmp_path / "socket"
                assert await hostile.tries("connect_unix", unix_path, thread=thread) == "EPERM"
                for kind in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"):
                    assert await hostile.tries("datagram", kind, thread=thread) == "EPERM"


@NEEDS_SECCOMP
@NEEDS_LANDLOCK
async def test_it_starts_no_program_and_touches_no_process(store: Path) -> None:
    async with a_hostile(store) as hostile:
        for thread in THREADS:
            for attempt in ("execute", "replace"):
                assert await hostile.tries(attempt, "/bin/true", thread=thread) == "EPERM"
            assert await hostile.tries("fork", thread=thread) == "EPERM"
            for attempt in ("kill", "ptrace"):
                assert await hostile.tries(attempt, os.getpid(), thread=thread) == "EPERM"


async def test_it_has_no_descriptor_but_its_log_its_socket_and_its_loops(store: Path) -> None:
    with (store / "blobs" / "other").open() as held:
        os.set_inheritable(held.fileno(), True)
        async with a_hostile(store) as hostile:
            kinds = (await hostile.tries("descriptors")).split(",")

    assert kinds[:3] == ["/dev/null", "pipe", "pipe"]
    # The control socket; for Trio, two pairs that wake it, and its epoll. No file.
    assert Counter(kinds[3:]) == {"socket": 5, "anon_inode": 1}


async def test_it_says_what_it_has_given_up(store: Path) -> None:
    async with a_hostile(store) as hostile:
        assert set(hostile.hello.confinement) == {
            Wall.CAPABILITIES, Wall.LIMITS, Wall.CORE_DUMPS, Wall.OOM_SCORE, Wall.FILES,
            Wall.NO_NEW_PRIVILEGES, Wall.NETWORK, Wall.SCOPES, Wall.SYSTEM_CALLS,
        }  # fmt: skip
        assert await hostile.tries("status", "NoNewPrivs") == "1"
        assert await hostile.tries("status", "Seccomp") == "2"
        limits = await trio.Path(f"/proc/{hostile.pid}/limits").read_text()
        score = await trio.Path(f"/proc/{hostile.pid}/oom_score_adj").read_text()
        own_score = await trio.Path("/proc/self/oom_score_adj").read_text()

    assert "Max core file size        0                    0" in limits
    assert int(score) == min(int(own_score) + 500, 1000)


def thread_name(pid: int, thread: Any) -> str:
    return Path(f"/proc/{pid}/task/{thread.id}/comm").read_text().strip()


async def test_it_joins_a_group_of_its_own_which_ends_with_it(store: Path, tmp_path: Path) -> None:
    """The tree is a plain folder: what the kernel would do with it is for a booted machine."""
    tree = CgroupTree(tmp_path / "service", frozenset({"memory"}))
    (tmp_path / "service").mkdir()
    group = tmp_path / "service" / "runner-1"
    async with a_hostile(store, Isolation(models_path=store, cgroups=tree)) as hostile:
        assert Wall.CGROUP in hostile.hello.confinement
        assert (group / "cgroup.procs").read_text() == "0"
        assert (group / "memory.oom.group").read_text() == "1"
        assert await hostile.tries("write", group / "memory.max") == "EACCES"
        assert not (group / "cgroup.kill").exists()

    assert (group / "cgroup.kill").read_text() == "1"


async def test_it_is_still_called_a_runner(store: Path) -> None:
    """Its name is written to a file, as the threads' are."""
    async with a_hostile(store) as hostile:
        names = {thread_name(hostile.pid, task) for task in psutil.Process(hostile.pid).threads()}

    assert names == {"ollamad-runner", "engine"}


async def test_a_crash_may_leave_its_memory_if_that_is_asked_for(store: Path) -> None:
    async with a_hostile(store, Isolation(models_path=store, core_dumps=True)) as hostile:
        assert Wall.CORE_DUMPS not in hostile.hello.confinement


async def test_turned_off_it_is_a_process_like_any_other(store: Path) -> None:
    async with a_hostile(store, Isolation(is_on=False)) as hostile:
        assert hostile.hello.confinement == ()
        assert await hostile.tries("read", "/etc/passwd") == "done:1"
        assert await hostile.tries("execute", "/bin/true") == "done:0"


@NEEDS_LANDLOCK
async def test_a_model_that_the_store_links_to_can_be_read(store: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk" / "weights"
    elsewhere.parent.mkdir()
    elsewhere.write_text("mine")
    (store / "blobs" / "own").unlink()
    (store / "blobs" / "own").symlink_to(elsewhere)
    async with a_hostile(store) as hostile:
        assert await hostile.tries("read", store / "blobs" / "own") == "done:1"
        assert await hostile.tries("read", store / "blobs" / "other") == "EACCES"

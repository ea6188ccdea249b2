"""Starts runner processes: `Launcher`, the interface, and `ProcessLauncher`, the real one.

A runner gets one end of a socketpair, its own session (so that a signal to the daemon's terminal
does not reach it, and its whole process group can be killed), no standard input, and an
environment of allowed names only. Standard output and error are one pipe of log lines. What else
keeps it apart it applies itself, as its arguments say (see `isolation`).

No parent-death signal: it follows the *thread* that spawned the child, and Trio's retires after
ten idle seconds. A runner leaves when its socket reaches end-of-file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import trio

from ollamad.errors import LoadFailed
from ollamad.runners.cgroup import CgroupTree, NotDelegated, RunnerGroup
from ollamad.runners.isolation import Isolation
from ollamad.runners.leftovers import daemon_mark

WORKER: Final = "ollamad.runners.worker"
"""The program of a runner."""

_ENVIRONMENT_NAMES: Final = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}
)
_ENVIRONMENT_PREFIXES: Final = (
    "LC_", "PYTHON", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "GGML_", "OMP_", "GOMP_",
    "KMP_", "OPENBLAS_", "VK_", "ZES_", "ONEAPI_",
)  # fmt: skip
_ENVIRONMENT_FIXED: Final = {
    # A failed assertion in ggml starts a debugger for a backtrace unless this is set.
    "GGML_NO_BACKTRACE": "1",
    "PYTHONUNBUFFERED": "1",
    # numpy's BLAS makes a thread for each core at import, and the runner never multiplies with it.
    "OPENBLAS_NUM_THREADS": "1",
    # Threads of an idle or waiting runner must not spin on cores that the daemon needs.
    "GOMP_SPINCOUNT": "20000",
}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSpec:
    """How to start a runner, before it knows which model it will load."""

    label: str
    """For logs: the model's name."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Added to the allowed part of the daemon's own, for example the visible devices."""
    memory_bytes: int = 0
    """Main memory that is planned for it; 0 is not known yet."""


class RunnerProcess(Protocol):
    """A started runner."""

    @property
    def pid(self) -> int:
        """The process id; also the id of its process group."""
        ...

    @property
    def stream(self) -> trio.abc.Stream:
        """The control socket."""
        ...

    @property
    def output(self) -> trio.abc.ReceiveStream:
        """Its log lines."""
        ...

    @property
    def has_ended(self) -> bool:
        """The process is over, as of now; nothing has to wait for it first."""
        ...

    def limit_memory(self, planned_bytes: int) -> None:
        """Let the kernel hold it to what was planned for it in main memory, where it can."""
        ...

    def terminate(self) -> None:
        """Ask the process to end with a signal it can handle. Nothing happens if it has ended."""
        ...

    def kill(self) -> None:
        """End the process and its group. Nothing happens if it has ended."""
        ...

    async def wait(self) -> int:
        """Wait for its end and return the exit status, negative for a signal."""
        ...


class Launcher(Protocol):
    """Starts runners."""

    async def launch(self, spec: RunnerSpec) -> RunnerProcess:
        """Return a started runner. Raises LoadFailed when the system refuses."""
        ...


class ProcessLauncher:
    """Starts real child processes."""

    def __init__(
        self,
        isolation: Isolation | None = None,
        *,
        worker_arguments: tuple[str, ...] = (),
        program: str = WORKER,
    ) -> None:
        """Runners are shut in by *isolation*; without it, they are not. *program* is a module."""
        self._isolation = isolation or Isolation(is_on=False)
        self._worker_arguments = worker_arguments
        self._program = program
        self._daemon_mark = daemon_mark()

    async def launch(self, spec: RunnerSpec) -> RunnerProcess:
        """Return a started worker process. Raises LoadFailed when the system refuses."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as exc:
            raise LoadFailed(f"no socket for a runner: {exc}") from exc
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        group = self._new_group()
        command = [
            sys.executable,
            "-P",  # The folder the daemon was started in must not provide modules.
            "-m",
            self._program,
            "--fd",
            str(theirs.fileno()),
            "--daemon",
            self._daemon_mark,
            *self._isolation.worker_arguments(),
            *(("--cgroup", str(group.folder)) if group is not None else ()),
            *self._worker_arguments,
        ]
        try:
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={**runner_environment(os.environ), **spec.environment},
            )
        except OSError as exc:
            with trio.CancelScope(shield=True):
                await stream.aclose()
            self._remove(group)
            raise LoadFailed(f"cannot start a runner process: {exc}") from exc
        finally:
            theirs.close()
        child = _ChildProcess(process, stream, group, self._remove)
        child.limit_memory(spec.memory_bytes)
        return child

    def _new_group(self) -> RunnerGroup | None:
        if isinstance(self._isolation.cgroups, NotDelegated):
            return None
        try:
            return self._isolation.cgroups.make()
        except OSError as exc:
            _log.warning(f"a runner gets no cgroup of its own: {exc.strerror}")
            return None

    def _remove(self, group: RunnerGroup | None) -> None:
        if group is not None and isinstance(self._isolation.cgroups, CgroupTree):
            self._isolation.cgroups.remove(group)


def runner_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of *environ* that a runner may see, with what every runner needs.

    Runners execute models from anywhere: the daemon's credentials and its connection to the
    service manager are none of their business.
    """
    allowed = {
        name: value
        for name, value in environ.items()
        if name in _ENVIRONMENT_NAMES or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    return {**_ENVIRONMENT_FIXED, **allowed}


class _ChildProcess:
    def __init__(
        self,
        process: trio.Process,
        stream: trio.SocketStream,
        group: RunnerGroup | None,
        remove: Callable[[RunnerGroup], None],
    ) -> None:
        assert process.stdout is not None  # noqa: S101 - asked for above
        self._process = process
        self._group = group
        self._remove = remove
        self.pid = process.pid
        self.stream: trio.abc.Stream = stream
        self.output: trio.abc.ReceiveStream = process.stdout

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    def limit_memory(self, planned_bytes: int) -> None:
        if self._group is not None and planned_bytes:
            self._group.limit_memory(planned_bytes)

    def terminate(self) -> None:
        self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        if self._group is not None:
            self._group.kill()
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        if self.has_ended:
            return  # Its number may belong to somebody else by now.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def wait(self) -> int:
        status = await self._process.wait()
        if (group := self._group) is not None:
            self._group = None
            if group.n_oom_kills:
                _log.warning(f"the kernel ended a runner (process {self.pid}) for its memory limit")
            group.kill()  # What it may have started.
            self._remove(group)
        return status

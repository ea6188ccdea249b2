"""Starts runner processes: `Launcher`, the interface, and `ProcessLauncher`, the real one.

A runner gets one end of a socketpair, its own session (so that a signal to the daemon's terminal
does not reach it, and its whole process group can be killed), no standard input, and an
environment of allowed names only. Standard output and error are one pipe of log lines.

No parent-death signal: it follows the *thread* that spawned the child, and Trio's retires after
ten idle seconds. A runner leaves when its socket reaches end-of-file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Final, Protocol

import trio

from ollamad.errors import LoadFailed

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSpec:
    """How to start a runner, before it knows which model it will load."""

    label: str
    """For logs: the model's name."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Added to the allowed part of the daemon's own, for example the visible devices."""


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

    def __init__(self, *, worker_arguments: tuple[str, ...] = ()) -> None:
        self._worker_arguments = worker_arguments

    async def launch(self, spec: RunnerSpec) -> RunnerProcess:
        """Return a started worker process. Raises LoadFailed when the system refuses."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as exc:
            raise LoadFailed(f"no socket for a runner: {exc}") from exc
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        command = [
            sys.executable,
            "-P",  # The folder the daemon was started in must not provide modules.
            "-m",
            "ollamad.runners.worker",
            "--fd",
            str(theirs.fileno()),
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
            raise LoadFailed(f"cannot start a runner process: {exc}") from exc
        finally:
            theirs.close()
        return _ChildProcess(process, stream)


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
    def __init__(self, process: trio.Process, stream: trio.SocketStream) -> None:
        assert process.stdout is not None  # noqa: S101 - asked for above
        self._process = process
        self.pid = process.pid
        self.stream: trio.abc.Stream = stream
        self.output: trio.abc.ReceiveStream = process.stdout

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    def terminate(self) -> None:
        self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        if self.has_ended:
            return  # Its number may belong to somebody else by now.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def wait(self) -> int:
        return await self._process.wait()

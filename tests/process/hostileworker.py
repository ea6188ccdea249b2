"""A worker whose engine tries what a model that has taken it over would try.

Prompts are `!THREAD ATTEMPT ARGUMENTS`; the answer is how it went: `done`, or the error's name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from ollamad.runners.protocol import Generate
from ollamad.runners.worker.__main__ import main
from ollamad.runners.worker.echo import EchoEngine
from ollamad.runners.worker.engine import Request

ENGINE: Final = "engine"
MAIN: Final = "main"
PATIENCE_S: Final = 10.0
_PTRACE_SEIZE: Final = 0x4206


def read(path: str) -> str:
    return f"done:{len(Path(path).read_bytes()[:1])}"


def write(path: str) -> str:
    Path(path).write_text("x")
    return "done"


def append(path: str) -> str:
    with Path(path).open("a"):
        return "done"


def remove(path: str) -> str:
    Path(path).unlink()
    return "done"


def look(path: str) -> str:
    os.listdir(path)  # noqa: PTH208 - names are all that is wanted
    return "done"


def connect(port: str) -> str:
    socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
    return "done"


def connect_unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path)
    return "done"


def datagram(kind: str) -> str:
    socket.socket(getattr(socket, kind), socket.SOCK_DGRAM).close()
    return "done"


def listen(_: str) -> str:
    with socket.socket(socket.AF_INET) as end:
        end.bind(("127.0.0.1", 0))
    return "done"


def execute(path: str) -> str:
    return f"done:{subprocess.run([path], check=False).returncode}"


def replace(path: str) -> str:
    os.execv(path, [path])  # noqa: S606 - the point


def fork(_: str) -> str:
    if os.fork() == 0:
        os._exit(0)
    return "done"


def kill(pid: str) -> str:
    os.kill(int(pid), 0)
    return "done"


def ptrace(pid: str) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(_PTRACE_SEIZE, int(pid), None, None):
        raise OSError(ctypes.get_errno(), "ptrace")
    return "done"


def descriptors(_: str) -> str:
    names = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    kinds = []
    for number in sorted(names):
        with contextlib.suppress(OSError):  # The one that listed them.
            kinds.append(os.readlink(f"/proc/self/fd/{number}").partition(":[")[0])  # noqa: PTH115
    return ",".join(kinds)


def status(name: str) -> str:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return lines[name].strip()


ATTEMPTS: Final[Mapping[str, Callable[[str], str]]] = {
    attempt.__name__: attempt
    for attempt in (
        read, write, append, remove, look, connect, connect_unix, datagram, listen, execute,
        replace, fork, kill, ptrace, descriptors, status,
    )
}  # fmt: skip


def outcome(name: str, argument: str) -> str:
    try:
        return ATTEMPTS[name](argument)
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))


class HostileEngine(EchoEngine):
    """Tries what its prompts say."""

    def submit(self, request: Request) -> None:
        assert isinstance(request, Generate)
        thread, name, argument = request.prompt.split(" ", 2)
        tried = outcome(name, argument) if thread == ENGINE else in_main_thread(name, argument)
        super().submit(msgspec.structs.replace(request, prompt=tried))


_order: list[str] = []
_answered = threading.Event()


def in_main_thread(name: str, argument: str) -> str:
    """Python runs handlers of signals in the main thread."""
    _answered.clear()
    _order[:] = [name, argument]
    os.kill(os.getpid(), signal.SIGUSR1)
    assert _answered.wait(PATIENCE_S)
    return _order[0]


def obey(_number: int, _frame: object) -> None:
    _order[:] = [outcome(*_order)]
    _answered.set()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, obey)
    main(lambda: (HostileEngine, lambda: "hostile"))

"""What the daemon itself costs: CPU per streamed line, and per small request. Needs no model.

    .venv/bin/python -m bench.streaming [--pace-ms 30] [--lines 300] [--requests 3000] [--json]

Starts a daemon whose runners echo, at the pace of a real model: each step gives every stream one
piece, so that each piece is a line. The clients are this process, the daemon is another, and only
its own CPU time is counted. CPU time is steadier than the clock on a busy machine; still, compare
figures of one machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from ollamad.app import Daemon
from ollamad.configfile import LoadedConfig, load_config
from ollamad.runners.launch import ProcessLauncher

STREAMS: Final = (1, 4, 8)
CONNECTIONS: Final = (1, 8)
MODEL: Final = "echo"
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
RECEIVE_BYTES: Final = 1 << 16
PATIENCE_S: Final = 120.0

Row = dict[str, str | float]


def serve(folder: Path) -> None:
    """Be the daemon: as ever, but with runners that echo. Prints its port."""
    variables = {"OLLAMA_NUM_PARALLEL": "8", "OLLAMA_CONTEXT_LENGTH": "4096", "HOME": str(folder)}
    variables["XDG_RUNTIME_DIR"] = str(folder / "run")
    flags: dict[str, str | None] = {"http.port": "0", "store.models_path": str(folder / "models")}

    def read() -> LoadedConfig:
        return load_config(flags, variables, None)

    async def main() -> None:
        launcher = ProcessLauncher(worker_arguments=("--engine", "echo"))
        async with trio.open_nursery() as nursery:
            print(await nursery.start(Daemon(read(), read, launcher).run), flush=True)

    trio.run(main)


class Server:
    """The daemon's process."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self._stat = Path(f"/proc/{pid}/stat")
        self._clock = (
            ~pid << 3 | 2
        )  # What clock_getcpuclockid() returns; Python has no name for it.

    def cpu_us(self) -> float:
        """Return the CPU time it has used itself, exactly."""
        return time.clock_gettime_ns(self._clock) / 1e3

    def modes_us(self) -> tuple[float, float]:
        """Return its time in user and in system mode, as the kernel's ticks sample them."""
        fields = self._stat.read_text().rpartition(")")[2].split()
        user, system = (int(field) / TICKS_PER_S * 1e6 for field in fields[11:13])
        return user, system


@contextmanager
def a_server() -> Iterator[Server]:
    """Run a daemon for the block, with a model whose template is the prompt alone."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bench.streaming", "--serve", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None  # noqa: S101 - asked for above
            server = Server(int(process.stdout.readline()), process.pid)
            template = "{{ range .Messages }}{{ .Content }}{{ end }}"
            try:
                origin = {"model": MODEL, "from": "smollm2:135m", "template": template}
                talk(server, [a_post("/api/create", origin)])
                yield server
            finally:
                process.terminate()


def a_post(path: str, body: object) -> bytes:
    """Return a request."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def talk(server: Server, requests: list[bytes]) -> int:
    """Send each request on a connection of its own; return how many lines came in all."""
    poll, n_lines = select.epoll(), 0
    connections: dict[int, socket.socket] = {}
    for request in requests:
        connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
        connection.sendall(request)
        connections[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    while connections:
        for descriptor, _ in poll.poll():
            data = connections[descriptor].recv(RECEIVE_BYTES)
            n_lines += data.count(b"}\n")
            if b'"error"' in data or not data:
                raise RuntimeError(data.decode())
            if data.endswith(b"0\r\n\r\n"):
                poll.unregister(descriptor)
                connections.pop(descriptor).close()
    poll.close()
    return n_lines


def ask_again_and_again(server: Server, n_connections: int, n_requests: int) -> int:
    """Ask for the version *n_requests* times, over connections that are kept while they can be."""
    request = b"GET /api/version HTTP/1.1\r\nhost: localhost\r\n\r\n"
    poll, n_answers = select.epoll(), 0
    connections: dict[int, socket.socket] = {}

    def connect() -> None:
        connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
        connections[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
        connection.sendall(request)

    for _ in range(n_connections):
        connect()
    while n_answers < n_requests:
        for descriptor, _ in poll.poll():
            data = connections[descriptor].recv(RECEIVE_BYTES)
            if not data:  # A connection serves a thousand requests.
                poll.unregister(descriptor)
                connections.pop(descriptor).close()
                connect()
            elif data.endswith(b"}"):  # Else the head came alone.
                n_answers += 1
                connections[descriptor].sendall(request)
    for connection in connections.values():
        connection.close()
    poll.close()
    return n_answers


def measured(server: Server, title: str, work: Callable[[], int]) -> Row:
    """Return what *work* cost for each of the things it says it did."""
    cpu, (user, system) = server.cpu_us(), server.modes_us()
    started = time.perf_counter()
    n_done = work()
    elapsed_s = time.perf_counter() - started
    cpu, (user_after, system_after) = server.cpu_us() - cpu, server.modes_us()
    user, system = user_after - user, system_after - system
    share = system / ((user + system) or 1)
    return {
        "what": title,
        "n": n_done,
        "cpu_us": cpu / n_done,
        "user_us": cpu / n_done * (1 - share),
        "system_us": cpu / n_done * share,
        "per_s": n_done / elapsed_s,
    }


def streams(path: str, n_streams: int, prompt: str) -> list[bytes]:
    """Return requests for *n_streams* answers."""
    body: dict[str, object] = {"model": MODEL}
    if path == "/api/chat":
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    return [a_post(path, body) for _ in range(n_streams)]


def measure(server: Server, pace_ms: int, n_lines: int, n_requests: int) -> Iterator[Row]:
    """Yield a row for each kind of work."""
    for path in ("/api/generate", "/api/chat"):
        talk(server, streams(path, 1, "the load is no part of it"))
        for n_streams in STREAMS:
            requests = streams(path, n_streams, f"!paced {pace_ms} {n_lines}")
            title = f"{path}, {n_streams} streams: per line"
            yield measured(server, title, lambda given=requests: talk(server, given))  # type: ignore[misc]
    for n in CONNECTIONS:
        title = f"/api/version, {n} connections: per request"
        yield measured(
            server,
            title,
            lambda n=n: ask_again_and_again(server, n, n_requests),  # type: ignore[misc]
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pace-ms", type=int, default=30)
    parser.add_argument("--lines", type=int, default=300, help="of each stream")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    with a_server() as server:
        rows = measure(server, arguments.pace_ms, arguments.lines, arguments.requests)
        if arguments.json:
            print(json.dumps(list(rows), indent=2))
            return
        for row in rows:
            print(
                f"{row['what']:44}{row['cpu_us']:7.1f} µs = {row['user_us']:6.1f} user + "
                f"{row['system_us']:5.1f} system   {row['per_s']:7.0f}/s",
                flush=True,
            )


if __name__ == "__main__":
    main()

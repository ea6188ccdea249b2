"""The two servers as child processes: started on a free port, asked, refreshed, and always ended.

Owns the processes and what only they know: how a model gets in, and what a cold start is. Both
serve the same file with the same threads, seats and context, and everything else as it comes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from bench.peers import clients, proctree
from bench.peers.build import SERVER, PeerPrograms
from bench.peers.clients import LoadFailed
from bench.peers.dialects import MODEL, Dialect, LlamaServerDialect, OllamaDialect
from bench.peers.wire import request_bytes
from tools.address import Address, bare_environ, free_address

START_TIMEOUT_S: Final = 120.0
UPLOAD_TIMEOUT_S: Final = 600.0
END_PATIENCE_S: Final = 30.0
POLL_S: Final = 0.001
SETTLE_S: Final = 3.0
"""How long a daemon has had nothing to do before its cold start is measured."""

WARM_UP: Final = "Hello"
LOG_BYTES_SHOWN: Final = 3000


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What both servers are given alike."""

    n_threads: int
    n_slots: int
    n_ctx: int
    is_embedding: bool = False


class Server(Protocol):
    """One of the two, as the cases see it."""

    name: str
    address: Address
    dialect: Dialect

    def start(self) -> None:
        """Bring it up with the model in memory."""

    def refresh(self) -> None:
        """Make it forget: the model is loaded anew, and nothing is cached."""

    def cold_start_s(self) -> float:
        """Return the time from nothing loaded to the first token."""

    def pids(self) -> list[int]:
        """Return the server and all processes it has started."""

    def daemon_cpu_s(self) -> float | None:
        """Return the CPU time of a process that only serves, or None if there is none."""

    def end(self) -> None:
        """End every process of it."""


class Child:
    """A process whose output goes to a file. It is ended by its id, whatever happened."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                process_group=0,  # Ctrl-C is ours to pass on, in the right order.
            )
        self.pid = self._process.pid

    def wait_for_status_200(self, address: Address, path: str) -> None:
        """Return as soon as *path* answers 200. Raises LoadFailed with the end of its log."""
        request, deadline = request_bytes("GET", path), time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, LoadFailed):
                clients.one_by_one(address, [request])
                return
            if self._process.poll() is not None:
                break
            time.sleep(POLL_S)
        tail = self._log.read_bytes()[-LOG_BYTES_SHOWN:].decode(errors="replace")
        raise LoadFailed(f"the server did not start. It said last:\n{tail}")

    def end(self) -> None:
        """Ask it to end, and kill it if it does not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(END_PATIENCE_S)


def control(address: Address, method: str, path: str, body: object = None) -> dict[str, Any]:
    """Ask once, outside of all measuring. Any: the answer is read at once. Raises LoadFailed."""
    answer = clients.one_by_one(address, [request_bytes(method, path, body)])[0]
    text = b"\n".join(answer.lines)
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {}


def first_token_s(server: Server, started_s: float) -> float:
    """Ask for one token and return when it was there, after *started_s*."""
    answer = clients.together(server.address, [server.dialect.completion(WARM_UP, 1)])[0]
    return server.dialect.read_completion(answer).arrivals_s[0] - started_s


class Peer:
    """llama-server."""

    name = "llama-server"

    def __init__(self, programs: PeerPrograms, model: Path, setting: Setting, folder: Path) -> None:
        self.dialect: Dialect = LlamaServerDialect()
        self.address = free_address()
        self._setting = setting
        self._log = folder / "llama-server.log"
        self._command = [
            programs.path(SERVER),
            *("--model", str(model), "--host", self.address.host),
            *("--port", str(self.address.port)),
            *("--threads", str(setting.n_threads), "--threads-batch", str(setting.n_threads)),
            *("--parallel", str(setting.n_slots)),
            *("--ctx-size", str(setting.n_ctx * setting.n_slots)),
            "--no-webui",
            *(["--embedding"] if setting.is_embedding else []),
        ]
        self._child: Child | None = None

    def start(self) -> None:
        """Start it, load the model and compute a first token."""
        self._spawn()
        if not self._setting.is_embedding:
            first_token_s(self, 0.0)

    def _spawn(self) -> None:
        # Its own variables would change what it does behind our options.
        environ = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA_")}
        self._child = Child(self._command, environ, self._log)
        self._child.wait_for_status_200(self.address, "/health")

    def refresh(self) -> None:
        """Start it anew."""
        self.end()
        self.start()

    def cold_start_s(self) -> float:
        """Return the time from starting the program to its first token."""
        self.end()
        started_s = time.perf_counter()
        self._spawn()
        return first_token_s(self, started_s)

    def pids(self) -> list[int]:
        """Return the server and all processes it has started."""
        return proctree.tree(self._child.pid) if self._child else []

    def daemon_cpu_s(self) -> float | None:
        """Return None: the process that serves is the one that computes."""
        return None

    def tokens(self, text: str) -> list[str]:
        """Return the pieces of *text* as the model's tokens, special ones included."""
        body = {"content": text, "add_special": True, "with_pieces": True}
        answer = control(self.address, "POST", "/tokenize", body)
        return [str(token["piece"]) for token in answer["tokens"]]

    def end(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.end()
            self._child = None


class Ours:
    """A daemon with a store of its own, and the runner that it starts."""

    name = "ollamad"

    def __init__(self, model: Path, setting: Setting, folder: Path) -> None:
        self.dialect: Dialect = OllamaDialect()
        self.address = free_address()
        self._model = model
        self._setting = setting
        self._log = folder / "ollamad.log"
        self._environ = bare_environ(folder / "home", self.address)
        config = Path(self._environ["XDG_CONFIG_HOME"], "ollamad", "ollamad.toml")
        config.write_text(
            f"[runner]\nn_slots = {setting.n_slots}\nn_ctx = {setting.n_ctx}\n"
            f"n_threads = {setting.n_threads}\n[store]\nembedded_model = false\n",
            encoding="utf-8",
        )
        self._child: Child | None = None

    def start(self) -> None:
        """Start the daemon, store the model, load it and compute a first token."""
        command = [sys.executable, "-m", "ollamad", "serve"]
        self._child = Child(command, self._environ, self._log)
        self._child.wait_for_status_200(self.address, "/api/version")
        self._store_model()
        self._load()

    def _store_model(self) -> None:
        with self._model.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            file.seek(0)
            connection = http.client.HTTPConnection(
                self.address.host, self.address.port, timeout=UPLOAD_TIMEOUT_S
            )
            with contextlib.closing(connection):
                size = str(self._model.stat().st_size)
                connection.request("POST", f"/api/blobs/{digest}", file, {"Content-Length": size})
                if connection.getresponse().status not in {200, 201}:
                    raise LoadFailed("the daemon did not take the model file")
        body = {"model": MODEL, "files": {"model.gguf": digest}, "stream": False}
        control(self.address, "POST", "/api/create", body)

    def _load(self) -> None:
        if self._setting.is_embedding:
            clients.one_by_one(self.address, [self.dialect.embedding([WARM_UP])])
        else:
            first_token_s(self, 0.0)

    def _unload(self) -> None:
        body = {"model": MODEL, "prompt": "", "keep_alive": 0, "stream": False}
        control(self.address, "POST", "/api/generate", body)
        deadline = time.monotonic() + START_TIMEOUT_S
        while control(self.address, "GET", "/api/ps").get("models"):
            if time.monotonic() >= deadline:
                raise LoadFailed("the daemon does not unload the model")
            time.sleep(POLL_S)

    def refresh(self) -> None:
        """Unload the model and load it again."""
        self._unload()
        self._load()

    def cold_start_s(self) -> float:
        """Return the time from a request to an idle daemon without a model to the first token."""
        self._unload()
        time.sleep(SETTLE_S)
        return first_token_s(self, time.perf_counter())

    def pids(self) -> list[int]:
        """Return the daemon and all processes it has started."""
        return proctree.tree(self._child.pid) if self._child else []

    def daemon_cpu_s(self) -> float | None:
        """Return the CPU time of the daemon, without its runner's."""
        return proctree.cpu_s(self._child.pid) if self._child else None

    def end(self) -> None:
        """End the daemon; its runner ends with it."""
        if self._child is not None:
            self._child.end()
            self._child = None

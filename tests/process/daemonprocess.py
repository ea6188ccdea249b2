"""A real daemon as a child process, on a free port, with a store of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import psutil

STARTS_WITHIN_S = 60
STOPS_WITHIN_S = 60


def workers_of(parent: psutil.Process) -> list[psutil.Process]:
    """Return the runners' processes among the children of *parent*, of whatever worker program."""
    workers = []
    for child in parent.children():
        with contextlib.suppress(psutil.Error):  # It ended while we looked.
            if {"--daemon", "--fd"} <= set(child.cmdline()):
                workers.append(child)
    return workers


def name_of(process: psutil.Process) -> str:
    """Return what `ps` shows; empty for one that has ended."""
    try:
        return process.name()
    except psutil.Error:
        return ""


class DaemonProcess:
    """A started daemon: its address, its log, its children."""

    program: ClassVar[Sequence[str]] = ("ollamad", "serve", "--port", "0")
    """What is run, unless it is said."""

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        *arguments: str,
        program: Sequence[str] | None = None,
    ) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("OLLAMA")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", *(program or self.program), *arguments],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={
                **inherited,
                "XDG_DATA_HOME": str(folder / "data"),
                "XDG_CONFIG_HOME": str(folder / "config"),
                "XDG_RUNTIME_DIR": str(folder / "run"),
                "HOME": str(folder),
                **environ,
            },
        )
        self.records: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._is_over = False
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            listening = self.wait_for_log(lambda r: r["message"].startswith("Listening on"))
        except BaseException:
            self.kill()
            raise
        self.url = "http://" + listening["message"].split()[2]

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                record = json.loads(line)
            except ValueError:
                record = {"message": line.decode(errors="replace"), "level": "raw"}
            with self._changed:
                self.records.append(record)
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def wait_for_log(
        self, wanted: Callable[[dict[str, Any]], bool], *, after: int = 0
    ) -> dict[str, Any]:
        """Return the first record that is *wanted*, from the *after*-th on."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_over or any(map(wanted, self.records[after:])),
                timeout=STARTS_WITHIN_S,
            )
            for record in self.records[after:]:
                if wanted(record):
                    return record
        raise AssertionError("\n".join(record["message"] for record in self.records[-20:]))

    def workers(self) -> list[psutil.Process]:
        """Return the processes of runners that live, with a model or without."""
        return workers_of(psutil.Process(self.process.pid))

    def runners(self) -> list[psutil.Process]:
        """Return those that were told to load a model."""
        return [child for child in self.workers() if name_of(child) == "ollamad-runner"]

    def wait_for_spare(self) -> psutil.Process:
        """Return the runner without a model, once it is up: only its name tells."""
        for _ in range(STARTS_WITHIN_S * 50):
            for child in self.workers():
                if name_of(child) == "ollamad-spare":
                    return child
            time.sleep(0.02)
        raise AssertionError("no spare runner")

    def stop(self) -> int:
        """Ask it to stop and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def kill(self) -> None:
        """End it without asking."""
        self.process.kill()
        self._ended()

    def _ended(self) -> int:
        status = self.process.wait(STOPS_WITHIN_S)
        self._reader.join(STOPS_WITHIN_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status


@contextlib.contextmanager
def a_daemon(
    folder: Path, environ: Mapping[str, str] | None = None, *arguments: str
) -> Iterator[DaemonProcess]:
    """Run a daemon for the block; it must stop cleanly when asked."""
    daemon = DaemonProcess(folder, environ or {}, *arguments)
    try:
        yield daemon
    finally:
        status = daemon.stop()
    assert status == 0, "\n".join(record["message"] for record in daemon.records[-20:])

"""`top`: devices, runners, queue and speed, live."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from ollamactl.admin import AdminClient, answer_as, find_socket
from ollamactl.commands.adminshared import ENVIRONMENT, socket_option
from ollamactl.commands.shared import json_option
from ollamactl.errors import CtlError
from ollamactl.helptext import DocumentedCommand
from ollamactl.render import write_json
from ollamactl.top import Snapshot, Speeds, frame
from ollamactl.wire import JsonObject
from ollamad.adminwire import Gpus, Queue, Runners, Status

PERIOD_S: Final = 1.0
"""Between two pictures; the daemon measures speeds no more often."""
PLAIN_SIZE: Final = (100, 60)
"""Columns and rows of a picture that no terminal shows."""

_PARTS: Final = ("Status", "Gpus", "Runners", "Queue")


@click.command(
    cls=DocumentedCommand,
    short_help="Watch devices, runners and requests live.",
    environment=ENVIRONMENT,
    examples=(
        ("Watch until q or Ctrl-C:", "ollamactl top"),
        ("One picture, for a mail or a bug report:", "ollamactl top --once"),
    ),
)
@click.option("--once", is_flag=True, help="Print one picture and end.")
@socket_option
@json_option
def top(once: bool, socket_path: str | None, as_json: bool) -> None:
    """Show devices, runners, waiting requests and tokens a second, live. q or Ctrl-C ends it.

    MEMORY of a device is drawn as held by our models, used by others, and free. CACHE is how full
    a model's context memory is. Where there is no terminal, one picture is printed, as with
    --once; --json prints what it is made of.
    """
    watcher = _Watcher(find_socket(socket_path, os.environ))
    with contextlib.closing(watcher):
        if as_json:
            write_json(watcher.ask())
        elif once or not (sys.stdout.isatty() and sys.stdin.isatty()):
            _print_once(watcher.look())
        else:
            # Ctrl-C is an ordinary end of this command.
            with contextlib.suppress(KeyboardInterrupt):
                _watch(watcher)


class _Watcher:
    """Asks again and again; a daemon that goes and comes back is found again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client: AdminClient | None = AdminClient(path)
        self._last: Snapshot | None = None

    def ask(self) -> dict[str, JsonObject]:
        """Return what the daemon answers, by method. Raises CtlError."""
        if self._client is None:
            self._client = AdminClient(self._path)
        try:
            return {name.lower(): self._client.call(name) for name in _PARTS}
        except CtlError:
            self.close()
            raise

    def look(self) -> Snapshot:
        """Return a snapshot of now; if there is none the last one, with the reason.

        Raises CtlError if there was none before either.
        """
        try:
            answers = self.ask()
        except CtlError as error:
            if self._last is None:
                raise
            return dataclasses.replace(self._last, problem=str(error))
        self._last = Snapshot(
            status=answer_as(Status, answers["status"]),
            devices=answer_as(Gpus, answers["gpus"]).devices,
            runners=answer_as(Runners, answers["runners"]).runners,
            queue=answer_as(Queue, answers["queue"]),
        )
        return self._last

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.__exit__(None, None, None)
            self._client = None


def _print_once(snapshot: Snapshot) -> None:
    console = Console(file=sys.stdout, highlight=False)
    columns, rows = PLAIN_SIZE
    if console.is_terminal:
        columns = shutil.get_terminal_size().columns
    else:
        console = Console(file=sys.stdout, highlight=False, width=columns)
    speeds = Speeds()
    speeds.take(snapshot.status.tokens_per_s)
    console.print(frame(snapshot, speeds, columns=columns, rows=rows, is_live=False))


def _watch(watcher: _Watcher) -> None:
    speeds = Speeds()
    console = Console(file=sys.stdout, highlight=False)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            snapshot = watcher.look()
            speeds.take(snapshot.status.tokens_per_s)
            columns, rows = console.size
            live.update(frame(snapshot, speeds, columns=columns, rows=rows), refresh=True)
            if pressed.within(PERIOD_S) in {"q", "Q", "\x03", "\x1b"}:
                return


class _Keyboard:
    """Single keys of a terminal, without waiting for a line's end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def within(self, seconds: float) -> str:
        """Return the key pressed within so long; empty for none, `q` at the end of input."""
        readable, _, _ = select.select([self._descriptor], [], [], seconds)
        if not readable:
            return ""
        return os.read(self._descriptor, 1).decode("ascii", errors="replace") or "q"


@contextlib.contextmanager
def _keys() -> Iterator[_Keyboard]:
    """Read keys one by one for the block; the terminal is as before afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

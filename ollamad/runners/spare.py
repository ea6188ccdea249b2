"""`SpareLauncher`: one started runner stands by, so that a load is a message, not a process start.

Python's modules and llama.cpp's libraries take longer to come in than many a model's context. A
spare has all that behind it: it has said `Hello` and waits for `Load`. A `Launcher` around another
one, so nobody who launches can tell a spare from a fresh runner:

- Of its socket only the first bytes are read, to know that it is up; its new owner reads them
  again.
- Its output is not read at all. The lines wait in the pipe for the log of whoever gets the
  spare, and so appear under the model's name. A spare that fills the pipe (64 KiB) before it says
  `Hello` stands still, and is stopped like any that does not start.
- A spare that is still starting is handed over as well: it is nearer than a fresh one, and what is
  wrong with it shows in the same way as with a fresh one, by the deadline for starting.
- A spare that ends before it was handed over is nobody's failure; from then on it is its model's.

Against forking runners from one warm process: llama.cpp's threads and a device's context do not
survive a fork. What we gave up is that only one load at a time finds a spare.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import trio

from ollamad.config import RunnerConfig
from ollamad.errors import LoadFailed
from ollamad.runners.client import RunnerClient
from ollamad.runners.launch import Launcher, RunnerProcess, RunnerSpec
from ollamad.runners.logs import RunnerLog
from ollamad.runners.procmemory import own_memory_bytes
from ollamad.runners.stopping import Patience, Rung, stop
from ollamad.units import format_bytes

RESTOCK_AFTER_S: Final = 2.0
"""How long after a launch the next spare is started: the load has the machine for itself."""
HELLO_TIMEOUT_S: Final = 60.0
"""How long a spare may take to start. A machine that swaps needs more than a second."""
RETRY_FIRST_S: Final = 1.0
"""How long after a failure the next spare is started; doubled by each further one."""
RETRY_MAX_S: Final = 300.0
STEADY_S: Final = 60.0
"""A spare that stood for so long was sound: the failures before it are forgotten."""
LAST_WORDS_S: Final = 1.0
"""How long the output of an ended spare is waited for; some child of it may hold the pipe."""
PEEK_BYTES: Final = 4096
ENDED: Final = "ended"
"""The fault of a spare whose process is over before anybody wanted that."""

_NAME: Final = "the spare runner"

_log = logging.getLogger(__name__)


class SpareLauncher:
    """Hands over the spare where it fits, and else starts runners with another launcher."""

    def __init__(
        self,
        launcher: Launcher,
        config: RunnerConfig,
        *,
        own_bytes: Callable[[int], int] | None = None,
    ) -> None:
        """*own_bytes* tells how much memory the process with an id has for itself."""
        self._launcher = launcher
        self._config = config
        self._own_bytes = own_bytes if own_bytes is not None else own_memory_bytes
        self._environment: dict[str, str] = {}
        """What the last launch asked for: the next one will likely ask for the same."""
        self._spare: _Spare | None = None
        """The one that may be handed over."""
        self._not_before = -math.inf
        self._n_failures = 0
        self._is_wanted = config.spare

    @property
    def held_bytes(self) -> int:
        """Memory of its own that the spare holds, once it is up; 0 without one."""
        return self._spare.held_bytes if self._spare is not None else 0

    @property
    def pids(self) -> tuple[int, ...]:
        """The process of the spare, if there is one."""
        return (self._spare.pid,) if self._spare is not None else ()

    async def launch(self, spec: RunnerSpec) -> RunnerProcess:
        """Return a started runner. Raises LoadFailed when the system refuses.

        1. A spare with the same environment stands by and lives: it is handed over.
        2. It has another environment: it is stopped, and the next one gets this environment.
        3. Otherwise a fresh one is started.

        Cancellation: a spare that is being handed over is returned all the same.
        """
        spare, self._spare = self._spare, None
        self._environment = dict(spec.environment)
        self._wait_at_least(RESTOCK_AFTER_S)
        if spare is not None:
            if spare.environment != self._environment:
                spare.dismiss()
            elif await spare.claim():
                spare.limit_memory(spec.memory_bytes)
                return spare
        return await self._launcher.launch(spec)

    async def run(self) -> None:
        """Keep a spare until cancelled, or until none is wanted. None is left at the end."""
        while self._is_wanted:
            if self._not_before > trio.current_time():
                await trio.sleep_until(self._not_before)  # A launch meanwhile moves the time.
            else:
                await self._keep_one()

    async def _keep_one(self) -> None:
        """Start a spare and keep it until it is handed over, dismissed or has failed."""
        spec = RunnerSpec(label=_NAME, environment=self._environment)
        try:
            process = await self._launcher.launch(spec)
        except LoadFailed as exc:
            self._failed(exc.message)
            return
        spare = self._spare = _Spare(process, dict(spec.environment))
        started_at = trio.current_time()
        try:
            with spare.standing:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._greet, spare)
                    await process.wait()
                    spare.fault = ENDED
                    nursery.cancel_scope.cancel()
        finally:
            if self._spare is spare:
                self._spare = None
            how = "" if spare.let_go() else await self._put_away(spare)
        if spare.is_handed_over or trio.current_time() - started_at >= STEADY_S:
            self._n_failures = 0
        if spare.fault:
            self._failed(f"{spare.fault} ({how})")

    async def _greet(self, spare: _Spare) -> None:
        """Wait until the spare is up, and see whether it may stay."""
        is_up = False
        with trio.move_on_after(HELLO_TIMEOUT_S) as patience:
            is_up = await spare.stream.peek()
        if not is_up:
            late = f"did not start within {HELLO_TIMEOUT_S:g} s"
            spare.fault = late if patience.cancelled_caught else ENDED
            spare.dismiss()
            return
        spare.held_bytes = self._own_bytes(spare.pid)
        most_bytes = self._config.spare_memory_max_bytes
        if spare.held_bytes > most_bytes:
            self._is_wanted = False
            _log.warning(
                f"{_NAME} takes {format_bytes(spare.held_bytes)}, more than "
                f"runner.spare_memory_max_bytes ({format_bytes(most_bytes)}): going on without one"
            )
            spare.dismiss()
            return
        _log.debug(f"{_NAME} stands by (process {spare.pid}, {format_bytes(spare.held_bytes)})")

    async def _put_away(self, spare: _Spare) -> str:
        """Stop a spare that nobody has got, log what it said, and return how it ended."""
        log = RunnerLog(_NAME, lines_kept=self._config.log_lines_kept)
        client = RunnerClient(spare.stream, lambda _message: None)
        patience = Patience(
            ask_s=self._config.ask_patience_s, terminate_s=self._config.terminate_patience_s
        )
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.run)
                rung = await stop(spare, client.shut_down, patience)
                nursery.cancel_scope.cancel()
            with trio.move_on_after(LAST_WORDS_S):
                await log.read(spare.output)
            if rung is Rung.LEFT:
                return Rung.LEFT.value
            status = await spare.wait()
        return log.how_it_ended(status)

    def _failed(self, reason: str) -> None:
        retry_s = min(RETRY_FIRST_S * 2.0**self._n_failures, RETRY_MAX_S)
        self._n_failures += 1
        self._wait_at_least(retry_s)
        _log.warning(f"{_NAME} {reason}; another one is started in {retry_s:g} s")

    def _wait_at_least(self, seconds: float) -> None:
        self._not_before = max(self._not_before, trio.current_time() + seconds)


class _Spare:
    """A started runner that nobody uses yet; also the process that is handed over."""

    def __init__(self, process: RunnerProcess, environment: dict[str, str]) -> None:
        self._process = process
        self.pid = process.pid
        self.stream = _Reread(process.stream)
        self.output = process.output
        self.environment = environment
        self.standing = trio.CancelScope()
        """Cancelled when it is to stand by no longer."""
        self.held_bytes = 0
        self.fault = ""
        """Why another one has to be started; empty while nothing is wrong with it."""
        self.is_handed_over = False
        self._is_claimed = False
        self._is_free = trio.Event()

    @property
    def has_ended(self) -> bool:
        return self._process.has_ended

    def limit_memory(self, planned_bytes: int) -> None:
        self._process.limit_memory(planned_bytes)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    async def wait(self) -> int:
        return await self._process.wait()

    def dismiss(self) -> None:
        """Let its keeper stop it."""
        self.standing.cancel()

    async def claim(self) -> bool:
        """Get it from its keeper. False if it has ended, which its keeper sees to.

        Not cancellable, and over within a few turns of the loop: in between it would be nobody's.
        """
        self._is_claimed = True
        self.standing.cancel()
        with trio.CancelScope(shield=True):
            await self._is_free.wait()
        return self.is_handed_over

    def let_go(self) -> bool:
        """Its keeper reads it no longer. Return whether another owner has it now."""
        if self._is_claimed and self.has_ended:
            self.fault = self.fault or ENDED
        self.is_handed_over = self._is_claimed and not self.fault
        self._is_free.set()
        return self.is_handed_over


class _Reread(trio.abc.Stream):
    """A stream whose first bytes may be read before they are received."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._first = b""

    async def peek(self) -> bool:
        """Wait for the first bytes, which stay. False if the stream ends without any."""
        try:
            self._first = bytes(await self._stream.receive_some(PEEK_BYTES))
        except trio.BrokenResourceError:
            return False
        return bool(self._first)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._first:
            return await self._stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        size = len(self._first) if max_bytes is None else max_bytes
        data, self._first = self._first[:size], self._first[size:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()

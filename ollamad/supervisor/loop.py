"""The shell around the core: one inbox, deadlines, and carrying out commands."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from typing import Final

import trio

from ollamad.config import RunnerConfig
from ollamad.errors import OllamadError
from ollamad.runners.launch import Launcher
from ollamad.runners.protocol import EngineGauges
from ollamad.supervisor.commands import (
    AssignThreads,
    Command,
    GiveSign,
    Grant,
    Note,
    ReadDevices,
    Refuse,
    StartRunner,
    StopRunner,
)
from ollamad.supervisor.core import Core
from ollamad.supervisor.daemonstate import DaemonState
from ollamad.supervisor.events import Event, RunnerId, SignAsked, TicketId
from ollamad.supervisor.runnertask import ReadAheadOf, RunnerTask, no_read_ahead

_log = logging.getLogger(__name__)

Answer = Callable[[RunnerTask | OllamadError], None]
"""What a ticket's owner is told: the runner it may use, or why not."""

UNSERVED_MAX_S: Final = 10.0
"""Events that wait for longer than this show that the loop hangs."""


def no_devices_to_read() -> None:
    """Do without a reading before the next one that comes by itself."""


def to_the_log_only(_note: Note) -> None:
    """Tell nobody else."""


class Loop:
    """The only caller of the core. Everything else posts events."""

    def __init__(
        self,
        core: Core,
        launcher: Launcher,
        config: RunnerConfig,
        read_ahead: ReadAheadOf = no_read_ahead,
        read_devices: Callable[[], None] = no_devices_to_read,
        *,
        publish: Callable[[Note], None] = to_the_log_only,
    ) -> None:
        self.core = core
        self._launcher = launcher
        self._config = config
        self._read_ahead = read_ahead
        self._read_devices = read_devices
        self._publish = publish
        self._signs: dict[int, trio.Event] = {}
        self._sign_numbers = itertools.count(1)
        self._unserved_since: float | None = None
        # Unbounded in type, bounded in fact: requests are counted by the line's limit, and every
        # runner posts a few events in its life.
        self._post, self._inbox = trio.open_memory_channel[Event](math.inf)
        self._answers: dict[TicketId, Answer] = {}
        self._runners: dict[RunnerId, RunnerTask] = {}
        self.drained = trio.Event()
        """Set when the daemon drains and nothing is resident any more."""

    def post(self, event: Event) -> None:
        """Tell the core that something happened. Never waits."""
        self._post.send_nowait(event)
        if self._unserved_since is None:
            self._unserved_since = trio.current_time()

    async def give_sign(self) -> None:
        """Return when the loop has handled an event that comes now. Waits as long as it hangs."""
        number = next(self._sign_numbers)
        self._signs[number] = given = trio.Event()
        try:
            self.post(SignAsked(number))
            await given.wait()
        finally:
            self._signs.pop(number, None)

    def overdue(self, now: float) -> str:
        """Return what should have been done by *now* and was not; empty if all is well."""
        unserved_s = now - self._unserved_since if self._unserved_since is not None else 0.0
        if unserved_s > UNSERVED_MAX_S:
            return f"events have waited for {unserved_s:.0f} s"
        return self.core.overdue(now)

    def expect(self, ticket: TicketId, answer: Answer) -> None:
        """Say who is to be told about *ticket*. To be called before it arrives."""
        self._answers[ticket] = answer

    def forget(self, ticket: TicketId) -> None:
        """Nobody is to be told about *ticket* any more."""
        self._answers.pop(ticket, None)

    @property
    def runners(self) -> tuple[RunnerTask, ...]:
        """The runners whose processes have not ended."""
        return tuple(self._runners.values())

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the runners."""
        return tuple(task.pid for task in self._runners.values() if task.pid)

    def gauges_of(self, runner: RunnerId) -> EngineGauges | None:
        """Return what a runner's engine last said of itself."""
        task = self._runners.get(runner)
        return task.gauges if task is not None else None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Runners are stopped, bounded by their patience, before it ends."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                event = None
                with trio.move_on_at(self.core.next_deadline()):
                    event = await self._inbox.receive()
                has_more = self._inbox.statistics().current_buffer_used > 0
                self._unserved_since = trio.current_time() if has_more else None
                for command in self.core.handle(event, trio.current_time()):
                    self._carry_out(command, nursery)
                if self.core.state is DaemonState.STOPPED:
                    self.drained.set()

    def _carry_out(self, command: Command, nursery: trio.Nursery) -> None:
        match command:
            case StartRunner():
                task = RunnerTask(
                    command, self._launcher, self._config, self.post, self._read_ahead
                )
                self._runners[command.runner] = task
                nursery.start_soon(self._run_runner, task)
            case StopRunner(runner):
                self._runners[runner].stop()
            case Grant(ticket, runner):
                self._answer(ticket, self._runners[runner])
            case Refuse(ticket, error):
                self._answer(ticket, error)
            case AssignThreads(runner, n_threads):
                self._runners[runner].client.use_threads(n_threads)
            case ReadDevices():
                self._read_devices()
            case GiveSign(number):
                if (given := self._signs.get(number)) is not None:
                    given.set()
            case Note():
                self._publish(command)
                _log.log(command.level, command.message, extra={"fields": dict(command.fields)})

    async def _run_runner(self, task: RunnerTask) -> None:
        try:
            await task.run()
        finally:
            del self._runners[task.runner]

    def _answer(self, ticket: TicketId, answer: RunnerTask | OllamadError) -> None:
        tell = self._answers.pop(ticket, None)
        if tell is not None:
            tell(answer)

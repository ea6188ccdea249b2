"""One runner's life in effects: launch, hello, load, serve, stop, reclaim.

Tells what happened as events; decides nothing. However the task ends, its process has ended
before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio

from ollamad.config import RunnerConfig
from ollamad.errors import LoadFailed, OllamadError, ProtocolBroken, RunnerCrashed
from ollamad.runners.client import LifeMessage, RunnerClient
from ollamad.runners.launch import Launcher, RunnerProcess, RunnerSpec
from ollamad.runners.logs import RunnerLog
from ollamad.runners.protocol import (
    PROTOCOL_VERSION,
    EngineGauges,
    FailureCode,
    Hello,
    Loaded,
    LoadProgress,
)
from ollamad.runners.protocol import LoadFailed as LoadFailedMessage
from ollamad.runners.stopping import Patience, Rung, stop
from ollamad.supervisor.commands import StartRunner
from ollamad.supervisor.events import (
    Event,
    MemoryReturned,
    RunnerExited,
    RunnerHello,
    RunnerId,
    RunnerLoaded,
    RunnerLoadFailed,
    RunnerProgress,
    RunnerStalled,
)

ReadAheadOf = Callable[[Iterable[str]], Awaitable[None]]
"""Brings files into memory, if it can. Its outcome does not matter."""


async def no_read_ahead(paths: Iterable[str]) -> None:
    """Leave all reading to the runner."""


class RunnerTask:
    """Runs one runner. `run` is the task; the rest is called by the loop."""

    def __init__(
        self,
        order: StartRunner,
        launcher: Launcher,
        config: RunnerConfig,
        post: Callable[[Event], None],
        read_ahead: ReadAheadOf = no_read_ahead,
    ) -> None:
        self.runner: RunnerId = order.runner
        self._order = order
        self._launcher = launcher
        self._config = config
        self._post = post
        self._read_ahead = read_ahead
        self._log = RunnerLog(order.name, lines_kept=config.log_lines_kept)
        self._stop_asked = trio.Event()
        self._is_left = False
        """Nothing ends its process: it is not waited for."""
        self._client: RunnerClient | None = None
        self._pid = 0

    @property
    def n_ctx(self) -> int:
        """Context length of one sequence, in tokens."""
        return self._order.plan.n_ctx

    @property
    def client(self) -> RunnerClient:
        """The connection to a runner that has been granted."""
        assert self._client is not None  # noqa: S101 - a grant follows Loaded, which it sent
        return self._client

    @property
    def gauges(self) -> EngineGauges | None:
        """What its engine last said of itself."""
        return self._client.gauges if self._client is not None else None

    @property
    def pid(self) -> int:
        """Its process; 0 before there is one."""
        return self._pid

    def stop(self) -> None:
        """Begin the stop ladder."""
        self._stop_asked.set()

    async def run(self) -> None:
        """Live the runner's life. Never raises for a runner's fault."""
        plan = self._order.plan
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead, (plan.model_path, *plan.adapter_paths))
            await self._live()
            nursery.cancel_scope.cancel()

    async def _live(self) -> None:
        try:
            process = await self._launcher.launch(
                RunnerSpec(
                    label=self._order.name,
                    environment=self._order.environment,
                    memory_bytes=self._order.memory_bytes,
                )
            )
        except LoadFailed as exc:
            self._post(RunnerExited(self.runner, exc.message))
            self._post(MemoryReturned(self.runner))
            return
        self._pid = process.pid
        client = self._client = RunnerClient(process.stream, self._life_message)
        status = 0
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._log.read, process.output)
                nursery.start_soon(self._converse, client)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._stop_when_asked, process, nursery.cancel_scope)
                status = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            if not self._is_left:
                rung = await stop(process, client.shut_down, self._patience)
                self._is_left = rung is Rung.LEFT
        detail = Rung.LEFT.value if self._is_left else self._log.how_it_ended(status)
        if client.broken is not None:
            detail = f"{client.broken.message}; then {detail}"
        # Told first: those whose answers this ends ask the core for another runner.
        self._post(RunnerExited(self.runner, detail))
        client.fail_all(RunnerCrashed(f"the model's runner ended: {detail}"))
        if self._is_left:
            return  # What it holds is not back, and its reservation ends by the time-out.
        # A process that has been waited for has given its main memory back. What it had of GPUs is
        # for the kernel to see.
        self._post(MemoryReturned(self.runner))

    @property
    def _patience(self) -> Patience:
        return Patience(
            ask_s=self._config.ask_patience_s, terminate_s=self._config.terminate_patience_s
        )

    async def _converse(self, client: RunnerClient) -> None:
        await client.run()
        # A runner that no longer speaks is of no use, even if its process lives on.
        self._stop_asked.set()

    async def _stop_when_asked(self, process: RunnerProcess, living: trio.CancelScope) -> None:
        await self._stop_asked.wait()
        rung = await stop(process, self.client.shut_down, self._patience)
        if rung is not Rung.ASK:
            self._log.note(f"had to be {rung.value}")
        if rung is Rung.LEFT:
            self._is_left = True
            living.cancel()

    async def _watch(self) -> None:
        """Notice an engine that has requests and makes no progress."""
        stall_timeout_s = self._config.stall_timeout_s
        while True:
            since = self.client.progress_at if self.client.n_open else trio.current_time()
            await trio.sleep_until(since + stall_timeout_s)
            stalls_at = self.client.progress_at + stall_timeout_s
            if self.client.n_open and stalls_at <= trio.current_time():
                self._post(RunnerStalled(self.runner))
                return

    def _life_message(self, message: LifeMessage) -> None:
        match message:
            case Hello():
                self._hello(message)
            case LoadProgress(fraction):
                self._post(RunnerProgress(self.runner, fraction))
            case Loaded():
                self._post(RunnerLoaded(self.runner, message.memory))
            case LoadFailedMessage():
                out_of_memory = message.code is FailureCode.OUT_OF_MEMORY
                error = self._load_error(message)
                self._post(RunnerLoadFailed(self.runner, error, out_of_memory=out_of_memory))

    def _hello(self, message: Hello) -> None:
        if message.protocol != PROTOCOL_VERSION:
            text = f"the runner speaks protocol {message.protocol}, we {PROTOCOL_VERSION}; "
            text += "restart the daemon after an upgrade"
            self._post(RunnerHello(self.runner, message.pid))
            self._post(RunnerLoadFailed(self.runner, ProtocolBroken(text)))
            return
        self._post(RunnerHello(self.runner, message.pid))
        self.client.load(self._order.plan)

    def _load_error(self, message: LoadFailedMessage) -> OllamadError:
        detail = message.detail
        if message.code is FailureCode.NOT_A_MODEL and self._log.last_error:
            detail += f" ({self._log.last_error})"
        return LoadFailed(f"{self._order.name} cannot be loaded: {detail}")

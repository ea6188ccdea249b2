"""Composition root: builds every part, wires it, and orders start and stop."""

from __future__ import annotations

import dataclasses
import gc
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import trio

from ollamad import __version__
from ollamad.config import SETTINGS, Config, changed_keys
from ollamad.configfile import LoadedConfig
from ollamad.errors import ConfigError, OllamadError, StartupError
from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import DeviceReading
from ollamad.gpu.host import HostMemory, n_cores
from ollamad.gpu.limits import limits_for
from ollamad.http.doors import Doors
from ollamad.http.routes import build_app
from ollamad.http.server import is_loopback, open_listener, serve_http
from ollamad.log import get_logger, set_level
from ollamad.notify import Notifier
from ollamad.registry.catalog import Catalog
from ollamad.registry.embedded import embedded_model_file, install_embedded
from ollamad.registry.store import Store
from ollamad.runners.launch import Launcher, ProcessLauncher
from ollamad.runners.readahead import ReadAhead
from ollamad.runners.spare import SpareLauncher
from ollamad.supervisor.compat import PlanDefaults
from ollamad.supervisor.core import Core
from ollamad.supervisor.events import DevicesRead
from ollamad.supervisor.loop import Loop
from ollamad.supervisor.service import Supervisor
from ollamad.units import format_bytes
from ollamad.wallclock import SystemWallClock

ReadConfig = Callable[[], LoadedConfig]
"""Reads the configuration anew. Raises ConfigError."""

STOP_EXTRA_S: Final = 20.0
"""What stopping may take beyond the drain: the stop ladders of the runners."""

GARBAGE_OBJECTS: Final = 20_000
"""New objects after which Python looks for garbage. Its own 700 are a few streamed lines."""

log = get_logger(__name__)


class Daemon:
    """One run of the daemon. Parts are made here and know only what they are given."""

    def __init__(
        self, loaded: LoadedConfig, read_config: ReadConfig, launcher: Launcher | None = None
    ) -> None:
        self._config: Config = loaded.config
        self._read_config = read_config
        config = self._config
        self._notifier = Notifier()
        self._memory = HostMemory(memory_max_bytes=config.gpu.host_memory_max_bytes)
        self._store = Store(config.store.models_path)
        self._catalog = Catalog(self._store)
        self._policies = config.models
        budget = Budget([self._memory.facts()], lambda facts: limits_for(facts, self._config.gpu))
        core = Core(config.scheduling, PlanDefaults(config.runner, n_cores()), budget)
        self._launcher = SpareLauncher(launcher or ProcessLauncher(), config.runner)
        read_ahead = ReadAhead(self._memory.available_bytes)
        self._loop = Loop(core, self._launcher, config.runner, read_ahead.read)
        self._supervisor = Supervisor(self._loop)
        self._stop_asked = trio.Event()
        self._connections_over = trio.Event()
        self.listener: socket.socket | None = None

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until asked to stop. Tells its port when requests are answered.

        Start: listen, look after the store, run the supervisor, serve.
        Stop: take no new connections, let answers end within the drain timeout, stop the runners.
        Raises StartupError.
        """
        http = self._config.http
        with open_listener(http.host, http.port) as self.listener:
            port: int = self.listener.getsockname()[1]
            await trio.to_thread.run_sync(self._prepare_store)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_signals)
                nursery.start_soon(self._read_memory)
                nursery.start_soon(self._feed_watchdog)
                await nursery.start(self._loop.run)
                await nursery.start(self._serve, self.listener)
                self._notifier.ready()
                nursery.start_soon(self._launcher.run)
                # What was imported and built stays: it need not be looked through for garbage.
                gc.freeze()
                gc.set_threshold(GARBAGE_OBJECTS)
                log.info(
                    f"Listening on {http.host or '*'}:{port} (version {__version__})",
                    models=str(self._config.store.models_path),
                    memory=format_bytes(self._memory.facts().capacity_bytes),
                    cores=n_cores(),
                )
                task_status.started(port)
                await self._stop_asked.wait()
                await self._stop()
                nursery.cancel_scope.cancel()
        self._notifier.close()
        log.info("stopped")

    def stop(self) -> None:
        """Ask for an orderly end. Asking twice ends it at once."""
        if self._stop_asked.is_set():
            log.warning("asked to stop twice: stopping without waiting for answers")
            self._connections_over.set()
        self._stop_asked.set()

    def reload(self) -> None:
        """Read the configuration anew and apply what can change while serving."""
        self._notifier.reloading()
        try:
            new = self._read_config().config
        except ConfigError as exc:
            log.warning("the configuration was not reloaded, the old one stays", reason=str(exc))
        else:
            self._apply(new)
        self._notifier.ready()

    def _apply(self, new: Config) -> None:
        changed = changed_keys(self._config, new)
        fixed = [key for key in changed if key in SETTINGS and not SETTINGS[key].reloadable]
        if fixed:
            log.warning("some changes need a restart of the daemon", settings=", ".join(fixed))
        set_level(new.log.level)
        scheduling = self._config.scheduling
        for key in changed:
            section, _, field = key.partition(".")
            if section == "scheduling" and key not in fixed:
                scheduling = dataclasses.replace(
                    scheduling, **{field: getattr(new.scheduling, field)}
                )
        self._supervisor.reconfigure(scheduling)
        self._policies = new.models
        log.info("configuration reloaded", changed=", ".join(changed) or "nothing")

    # Start

    def _prepare_store(self) -> None:
        """Make the store's folder, clean it up, and give an empty one the embedded model."""
        config = self._config.store
        try:
            config.models_path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StartupError(
                f"the models folder {config.models_path} cannot be made: {exc.strerror}; "
                "OLLAMA_MODELS or --models choose another"
            ) from exc
        try:
            if config.prune:
                self._store.sweep(datetime.now(UTC))
            if config.embedded_model and not self._store.names():
                self._offer_embedded()
        except OllamadError as exc:
            log.warning("the models folder could not be looked after", reason=exc.message)

    def _offer_embedded(self) -> None:
        if embedded_model_file() is None:
            return
        name = install_embedded(self._store, self._catalog)
        log.info("the store was empty: put the embedded model in it", model=name.display)

    async def _serve(
        self,
        listener: socket.socket,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        doors = Doors(
            supervisor=self._supervisor,
            catalog=self._catalog,
            store=self._store,
            config=self._config.http,
            clock=SystemWallClock(),
        )
        app = build_app(doors, is_loopback=is_loopback(self._config.http.host))
        await serve_http(
            app,
            listener,
            shutdown=self._stop_asked.wait,
            drain_timeout_s=self._config.http.drain_timeout_s,
            task_status=task_status,
        )
        self._connections_over.set()

    # While serving

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    self.reload()
                else:
                    log.info("asked to stop", signal=signal.Signals(number).name)
                    self.stop()

    async def _read_memory(self) -> None:
        while True:
            self._loop.post(DevicesRead((self._reading(),)))
            await trio.sleep(self._config.gpu.memory_period_s)

    def _reading(self) -> DeviceReading:
        # The spare is not somebody else's: it becomes a runner's process, and every plan has room
        # for one.
        reading = self._memory.reading()
        used_bytes = max(reading.used_bytes - self._launcher.held_bytes, 0)
        return dataclasses.replace(reading, used_bytes=used_bytes)

    async def _feed_watchdog(self) -> None:
        period_s = self._notifier.watchdog_period_s
        while period_s is not None:
            self._notifier.watchdog()
            await trio.sleep(period_s)

    # Stop

    async def _stop(self) -> None:
        """Let answers end, then the runners; both within their limits."""
        drain_s = self._config.http.drain_timeout_s
        self._notifier.stopping()
        self._notifier.extend_timeout(drain_s + STOP_EXTRA_S)
        with trio.move_on_after(drain_s):
            await self._connections_over.wait()
        with trio.move_on_after(STOP_EXTRA_S):
            await self._supervisor.drain()


def run(loaded: LoadedConfig, read_config: ReadConfig) -> None:
    """Run the daemon until it ends. Raises StartupError."""

    async def main() -> None:
        await Daemon(loaded, read_config).run()

    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        startup = group.subgroup(StartupError)
        if startup is None:
            raise
        raise _first(startup) from None


def _first(group: BaseExceptionGroup[StartupError]) -> StartupError:
    exc: BaseException = group
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    assert isinstance(exc, StartupError)  # noqa: S101 - the subgroup has nothing else
    return exc

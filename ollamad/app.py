"""Composition root: builds every part, wires it, and orders start and stop."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import trio

from ollamad import __version__
from ollamad.admin.door import serve_admin
from ollamad.admin.methods import Methods
from ollamad.admin.steering import Surroundings
from ollamad.adminwire import Reloaded
from ollamad.config import SETTINGS, Config, changed_keys
from ollamad.configfile import LoadedConfig
from ollamad.devicewatch import DeviceWatch
from ollamad.errors import ConfigError, OllamadError, StartupError
from ollamad.gpu.budget import Budget
from ollamad.gpu.devices import SeenDevice
from ollamad.gpu.host import n_cores
from ollamad.gpu.limits import limits_for
from ollamad.http.doors import Doors
from ollamad.http.routes import build_app
from ollamad.http.server import is_loopback, open_listener, serve_http
from ollamad.log import get_logger, set_level
from ollamad.modelpolicy import ModelPolicy
from ollamad.notify import Notifier
from ollamad.options import LoadOptions
from ollamad.registry.catalog import Catalog
from ollamad.registry.embedded import embedded_model_file, install_embedded
from ollamad.registry.store import Store
from ollamad.runners.cgroup import CgroupTree
from ollamad.runners.isolation import describe, isolation_for, summary
from ollamad.runners.launch import Launcher, ProcessLauncher
from ollamad.runners.leftovers import end_leftovers
from ollamad.runners.measuring import Measurer
from ollamad.runners.readahead import ReadAhead
from ollamad.runners.spare import SpareLauncher
from ollamad.supervisor.bulletin import Bulletin
from ollamad.supervisor.compat import PlanDefaults
from ollamad.supervisor.core import Core
from ollamad.supervisor.events import DevicesSeen
from ollamad.supervisor.exactdemand import ExactDemand
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
        self._config_file = loaded.file
        self._read_config = read_config
        config = self._config
        self._notifier = Notifier()
        self._devices = DeviceWatch(config.gpu)
        self._store = Store(config.store.models_path)
        self._catalog = Catalog(self._store)
        self._policies = config.models
        memory = self._devices.memory
        budget = Budget([memory.facts()], lambda facts: limits_for(facts, self._config.gpu))
        core = Core(config.scheduling, PlanDefaults(config.runner, n_cores()), budget)
        self._isolation = isolation_for(config.runner, config.store.models_path)
        self._launcher = SpareLauncher(launcher or ProcessLauncher(self._isolation), config.runner)
        read_ahead = ReadAhead(memory.available_bytes)
        self._bulletin = Bulletin(SystemWallClock())
        self._loop = Loop(
            core,
            self._launcher,
            config.runner,
            read_ahead.read,
            self._devices.expect_change,
            publish=self._bulletin.publish,
        )
        self._supervisor = Supervisor(
            self._loop,
            self._policy_of,
            ExactDemand(core.defaults, Measurer().measure),
        )
        self._stop_asked = trio.Event()
        self._connections_over = trio.Event()
        self.listener: socket.socket | None = None

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until asked to stop. Tells its port when requests are answered.

        Start: listen, end what an earlier life left, look after the store, run the supervisor,
        look for GPUs, serve.
        Stop: take no new connections, let answers end within the drain timeout, stop the runners.
        Raises StartupError.
        """
        http, config_admin = self._config.http, self._config.admin
        with open_listener(http.host, http.port) as self.listener:
            port: int = self.listener.getsockname()[1]
            await trio.to_thread.run_sync(self._end_leftovers)
            await trio.to_thread.run_sync(self._prepare_store)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_signals)
                if (period_s := self._notifier.watchdog_period_s) is not None:
                    nursery.start_soon(
                        feed_watchdog, self._supervisor, self._notifier.watchdog, period_s
                    )
                await nursery.start(self._loop.run)
                await nursery.start(self._devices.run, self._see, self._own_processes)
                if config_admin.enabled:
                    await nursery.start(self._serve_admin, f"{http.host or '*'}:{port}")
                await nursery.start(self._serve, self.listener)
                self._notifier.ready()
                nursery.start_soon(self._launcher.run)
                nursery.start_soon(self._preload)
                # What was imported and built stays: it need not be looked through for garbage.
                gc.freeze()
                gc.set_threshold(GARBAGE_OBJECTS)
                log.info(
                    f"Listening on {http.host or '*'}:{port} (version {__version__})",
                    models=str(self._config.store.models_path),
                    memory=format_bytes(self._devices.memory.facts().capacity_bytes),
                    cores=n_cores(),
                    gpus=", ".join(self._devices.gpu_names()) or "none",
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

    def reload(self) -> Reloaded:
        """Read the configuration anew and apply what can change while serving.

        Raises ConfigError, and the old one stays.
        """
        self._notifier.reloading()
        try:
            return self._apply(self._read_config().config)
        except ConfigError as exc:
            log.warning("the configuration was not reloaded, the old one stays", reason=str(exc))
            raise
        finally:
            self._notifier.ready()

    def _apply(self, new: Config) -> Reloaded:
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
        return Reloaded(
            changed=tuple(key for key in changed if key not in fixed), needs_restart=tuple(fixed)
        )

    # Start

    def _end_leftovers(self) -> None:
        """End the runners of an earlier life, whose memory the plans would count as others'."""
        if isinstance(self._isolation.cgroups, CgroupTree):
            self._isolation.cgroups.end_leftovers()
        end_leftovers()
        log.info(summary(describe(self._isolation)))

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

    async def _serve_admin(
        self, listen: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        around = Surroundings(
            listen=listen,
            store=str(self._config.store.models_path),
            config_file=str(self._config_file) if self._config_file is not None else None,
            reload=self.reload,
            features=lambda: describe(self._isolation),
            sensors=self._devices.sensors,
            gpus=self._devices.status,
        )
        methods = Methods(self._supervisor, self._catalog, around, os.getpid())
        await serve_admin(
            methods, self._bulletin, self._config.admin, os.environ, task_status=task_status
        )

    # While serving

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    with contextlib.suppress(ConfigError):  # It is logged, and that is all here.
                        self.reload()
                else:
                    log.info("asked to stop", signal=signal.Signals(number).name)
                    self.stop()

    def _policy_of(self, name: str) -> ModelPolicy:
        return self._policies.of(name)  # A reload replaces the book.

    def _see(self, devices: tuple[SeenDevice, ...]) -> None:
        self._loop.post(DevicesSeen(devices))

    def _own_processes(self) -> tuple[int, ...]:
        # The spare is ours as well: it becomes a runner's process, and every plan has room for one.
        return (*self._loop.pids, *self._launcher.pids)

    async def _preload(self) -> None:
        """Load the models that are to be there from the start, one after the other."""
        for name, policy in self._policies.policies:
            if not policy.preload:
                continue
            try:
                model = await trio.to_thread.run_sync(self._catalog.find, name.display)
                await self._supervisor.preload(model, LoadOptions())
            except OllamadError as exc:
                log.warning(f"{name.display} was not loaded at the start", reason=exc.message)

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


async def feed_watchdog(supervisor: Supervisor, feed: Callable[[], None], period_s: float) -> None:
    """Call *feed* every *period_s*, as long as the kernel shows that it does its work.

    A process that runs but no longer decides anything is as dead as one that does not.
    """
    while True:
        until = trio.current_time() + period_s
        why = "the kernel gives no sign"
        with trio.move_on_at(until):
            await supervisor.give_sign()
            why = supervisor.health(trio.current_time()).why
        if why:
            log.error("the watchdog is not fed", reason=why)
        else:
            feed()
        await trio.sleep_until(until)


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

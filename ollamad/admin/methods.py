"""The methods of `io.ollamad.Admin`: what each asks of the supervisor. Knows no socket.

Changes are logged here, with who asked: once, with how it went.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import trio

from ollamad import __version__
from ollamad import adminwire as wire
from ollamad.admin import looking
from ollamad.admin.errors import Refused, refused
from ollamad.admin.meter import SAMPLE_PERIOD_S, TokenMeter
from ollamad.admin.peers import Access, Peer
from ollamad.admin.steering import Models, Steering, Surroundings
from ollamad.errors import ConfigError, OllamadError
from ollamad.log import get_logger, set_level
from ollamad.modelinfo import StoredModel, WeightsId
from ollamad.names import ModelName
from ollamad.options import OPTIONS, LoadOptions, parse_options

FILE_THREADS_MAX: Final = 2
"""Threads that read the store for this door, at once."""

Handler = Callable[[Any], Awaitable[Any]]
"""Takes and returns what `METHODS` says of its name, which is why both are Any here."""

log = get_logger(__name__)


class Methods:
    """Answers calls. `Events` is not among them: it has no end, and is the connection's."""

    def __init__(
        self, steering: Steering, models: Models, surroundings: Surroundings, process_id: int
    ) -> None:
        self._steering = steering
        self._models = models
        self._around = surroundings
        self._pid = process_id
        self._meter = TokenMeter()
        self._started_at = trio.current_time()
        self._file_threads = trio.CapacityLimiter(FILE_THREADS_MAX)
        self.handlers: Final[Mapping[str, Handler]] = {
            "Gpus": self._gpus,
            "Runners": self._runners,
            "Queue": self._queue,
            "Explain": self._explain,
            "Evict": self._evict,
            "Restart": self._restart,
            "Reset": self._reset,
            "Pin": partial(self._pin, pinned=True),
            "Unpin": partial(self._pin, pinned=False),
            "Preload": self._preload,
            "Drain": self._drain,
            "Resume": self._resume,
            "Reload": self._reload,
            "SetLogLevel": self._set_log_level,
        }

    async def meter(self) -> None:
        """Measure tokens a second, until cancelled."""
        while True:
            self._meter.take(
                trio.current_time(),
                {
                    view.runner: view.gauges.generated_tokens
                    for view in self._steering.residents()
                    if view.gauges is not None
                },
            )
            await trio.sleep(SAMPLE_PERIOD_S)

    async def answer(self, name: str, parameters: Any, peer: Peer, access: Access) -> Any:
        """Return what the method *name* returns (Any: of the type that `METHODS` says).

        Cancellation ends a wait and undoes nothing. Raises Refused.
        """
        if name == "Status":
            return self._status(may_change=access is Access.CHANGE)
        model = getattr(parameters, "model", "")
        try:
            result = await self.handlers[name](parameters)
        except OllamadError as exc:
            error = refused(exc, model)
            self._log_change(name, parameters, peer, error.error.message)
            raise error from exc
        except Refused as exc:
            self._log_change(name, parameters, peer, exc.error.message)
            raise
        self._log_change(name, parameters, peer, "done")
        return result

    @staticmethod
    def _log_change(name: str, parameters: Any, peer: Peer, outcome: str) -> None:
        if not wire.METHODS[name].changes:
            return
        fields = {
            key: value
            for key in ("model", "force", "level")
            if (value := getattr(parameters, key, None)) is not None
        }
        log.info(
            "asked for over the admin door",
            method=name,
            **fields,
            outcome=outcome,
            peer_uid=peer.uid,
            peer_pid=peer.pid,
        )

    # Looking

    def _status(self, *, may_change: bool) -> wire.Status:
        now = trio.current_time()
        residents = self._steering.residents()
        return wire.Status(
            version=__version__,
            pid=self._pid,
            uptime_s=round(now - self._started_at, 3),
            state=wire.DaemonState(self._steering.state.value),
            listen=self._around.listen,
            store=self._around.store,
            config_file=self._around.config_file,
            log_level=looking.level_of(logging.getLogger("ollamad").getEffectiveLevel()),
            may_change=may_change,
            runners=len(residents),
            requests=sum(view.n_leases for view in residents),
            waiting=len(self._steering.waiting()),
            tokens_per_s=round(self._meter.total_tokens_per_s(), 2),
            generated_tokens=self._meter.generated_tokens,
            gpus=self._around.gpus(),
            cooling=tuple(
                looking.cooling(view, now)
                for view in self._steering.cooling()[: wire.COOLING_SHOWN_MAX]
            ),
            features=looking.features(self._around.features()),
        )

    async def _gpus(self, _: wire.Nothing) -> wire.Gpus:
        return wire.Gpus(devices=looking.devices(self._steering.devices(), self._around.sensors()))

    async def _runners(self, _: wire.Nothing) -> wire.Runners:
        now = trio.current_time()
        return wire.Runners(
            runners=tuple(
                looking.runner(view, now, self._meter) for view in self._steering.residents()
            )
        )

    async def _queue(self, _: wire.Nothing) -> wire.Queue:
        waiting = self._steering.waiting()
        return wire.Queue(
            total=len(waiting),
            waiting=tuple(map(looking.waiting, waiting[: wire.WAITING_SHOWN_MAX])),
        )

    async def _explain(self, asked: wire.OfLoad) -> wire.Explained:
        model, options = await self._load_of(asked)
        return looking.explained(self._steering.explain(model, options))

    # Changing

    async def _evict(self, asked: wire.OfEvict) -> wire.Nothing:
        weights_id = await self._weights_of(asked.model)
        if not self._steering.evict(weights_id, force=bool(asked.force)):
            raise _not_loaded(asked.model)
        return wire.Nothing()

    async def _restart(self, asked: wire.OfModel) -> wire.Nothing:
        if not self._steering.restart(await self._weights_of(asked.model)):
            raise _not_loaded(asked.model)
        return wire.Nothing()

    async def _reset(self, asked: wire.OfModel) -> wire.Reset:
        return wire.Reset(was_cooling=self._steering.reset(await self._weights_of(asked.model)))

    async def _pin(self, asked: wire.OfModel, *, pinned: bool) -> wire.Nothing:
        self._steering.pin(await self._weights_of(asked.model), pinned)
        return wire.Nothing()

    async def _preload(self, asked: wire.OfLoad) -> wire.Nothing:
        model, options = await self._load_of(asked)
        await self._steering.preload(model, options)
        return wire.Nothing()

    async def _drain(self, _: wire.Nothing) -> wire.Nothing:
        self._steering.drain_begin()
        return wire.Nothing()

    async def _resume(self, _: wire.Nothing) -> wire.Nothing:
        self._steering.resume()
        return wire.Nothing()

    async def _reload(self, _: wire.Nothing) -> wire.Reloaded:
        try:
            return self._around.reload()
        except ConfigError as exc:
            raise Refused(wire.CannotServe(message=f"the old configuration stays: {exc}")) from exc

    async def _set_log_level(self, asked: wire.OfLevel) -> wire.Nothing:
        set_level(asked.level.value)
        return wire.Nothing()

    # Names

    async def _find(self, name: str) -> StoredModel:
        known = self._models.remembered(name)
        if known is not None:
            return known
        return await trio.to_thread.run_sync(
            partial(self._models.find, name), limiter=self._file_threads, abandon_on_cancel=True
        )

    async def _weights_of(self, name: str) -> WeightsId:
        """Return the weights that *name* means: what runs under that name, else what is stored.

        What runs may have been deleted from the store, or its name given to another model.
        """
        key = ModelName.parse(name).key
        for view in self._steering.residents():
            if ModelName.parse(view.name).key == key:
                return view.weights_id
        return (await self._find(name)).weights_id

    async def _load_of(self, asked: wire.OfLoad) -> tuple[StoredModel, LoadOptions]:
        options = asked.options or {}
        for option in options:
            if option not in OPTIONS:
                near = difflib.get_close_matches(option, OPTIONS, n=1)
                hint = f", did you mean {near[0]}?" if near else ""
                raise Refused(wire.BadRequest(message=f'unknown option "{option[:80]}"{hint}'))
        model = await self._find(asked.model)
        load, _ = parse_options(model.parameters, options)
        return model, load


def _not_loaded(model: str) -> Refused:
    return Refused(wire.NotLoaded(model=model, message=f"model '{model}' is not loaded"))

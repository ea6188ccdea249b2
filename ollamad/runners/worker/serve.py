"""Connects an engine to the control socket: commands in, one frame of deltas a step out.

Two threads. Trio's reads the socket and never computes; the engine's computes, and writes what came
of it to the socket without waiting (see `outbox`). Between them: a guarded list of commands. The
engine's thread begins with `Load`, so that it inherits what Trio's has given up (see `confine`).
End-of-file on the socket ends the process at once, whatever the engine is doing, because a runner
must never outlive its daemon.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Final, assert_never

import trio

from ollamad.errors import ProtocolBroken
from ollamad.runners.channel import Channel, ChannelClosed
from ollamad.runners.protocol import (
    PROTOCOL_VERSION,
    Beat,
    Cancel,
    Deltas,
    Embed,
    Failed,
    FromRunner,
    Generate,
    Hello,
    Load,
    Loaded,
    LoadFailed,
    LoadPlan,
    LoadProgress,
    Rank,
    Shutdown,
    Threads,
    Tokenize,
    Tokenized,
    ToRunner,
)
from ollamad.runners.worker.confine import Confinement
from ollamad.runners.worker.engine import Engine, EngineLoader, EngineRefused, StepResult
from ollamad.runners.worker.memoryuse import memory_before, memory_use
from ollamad.runners.worker.outbox import Outbox
from ollamad.runners.worker.pacing import Pacer

BEAT_PERIOD_S: Final = 1.0
"""How often a busy runner shows its progress. An idle one is silent."""
PROGRESS_STEP: Final = 0.02
"""Load progress is told in steps of this size, at most 50 messages a load."""
NAME_SPARE: Final = "ollamad-spare"
NAME_LOADED: Final = "ollamad-runner"
"""How a runner's process is called before and after it is told what to load: 15 letters at most."""
EXIT_ENGINE_BROKE: Final = 70
"""The exit status after an unexpected exception in the engine (EX_SOFTWARE)."""

LAST_WORDS_PATIENCE_S: Final = 5.0
"""How long a runner that could not load its model tries to say so before it exits."""
IDLE_BEFORE_USE_S: Final = 2.0
"""How long there must have been nothing to do before what can be made in advance is made, once: a
request that comes while it is may have to wait for a part of a second."""
GARBAGE_OBJECTS: Final = 5_000
"""New objects after which Python looks for garbage: hundreds of steps, and few enough that what a
refused request leaves behind (its error's traceback, and through it all it had) soon goes."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How long one thread keeps the interpreter from another that wants it. Python's own 5 ms are a
step's time: the engine must not wait that long after each batch."""


class EngineThread:
    """The thread that owns the engine. Methods are called from Trio's thread."""

    def __init__(self, load: EngineLoader, outbox: Outbox) -> None:
        self._load = load
        self._outbox = outbox
        self._commands: deque[ToRunner] = deque()
        self._given_work = trio.Event()
        self._changed = threading.Condition()
        self._engine: Engine | None = None
        self._pacer = Pacer()
        self.is_started = False

    def start(self) -> None:
        """Start the thread. It ends with the process."""
        self.is_started = True
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    def put(self, command: ToRunner) -> None:
        """Hand over a command. A cancelled request may interrupt the running step."""
        engine = self._engine
        if isinstance(command, Cancel) and engine is not None:
            engine.interrupt(command.id)
        with self._changed:
            self._commands.append(command)
            self._changed.notify()
        self._given_work.set()

    @property
    def beat(self) -> Beat | None:
        """The engine's progress; `None` before it is loaded."""
        return Beat(self._engine.gauges) if self._engine is not None else None

    @property
    def is_busy(self) -> bool:
        """The engine has something to compute."""
        return bool(self._commands) or (self._engine is not None and self._engine.has_work)

    async def given_work(self) -> None:
        """Wait for the next command. An idle runner wakes up for nothing else."""
        self._given_work = trio.Event()
        await self._given_work.wait()

    def _run(self) -> None:
        name_thread("engine")
        try:
            engine = self._loaded(self._first_plan())
            has_used_idle_time = False
            while True:
                if not engine.has_work and not has_used_idle_time:
                    has_used_idle_time = self._idles(IDLE_BEFORE_USE_S)
                    if has_used_idle_time:
                        engine.use_idle_time()
                commands = self._take(wait=not engine.has_work)
                if commands:
                    self._publish(StepResult(deltas=self._pacer.rest()))
                    self._apply(engine, commands)
                if engine.has_work:
                    result, is_steady = engine.step(), engine.is_steady
                    self._publish(self._pacer.take(result, time.monotonic(), is_steady=is_steady))
        except EngineRefused as exc:
            self._outbox.send([LoadFailed(exc.code, exc.detail)])
            self._outbox.drain(LAST_WORDS_PATIENCE_S)
            os._exit(0)
        except Exception:  # noqa: BLE001 - the process ends: the daemon must not wait for a thread
            traceback.print_exc()
            os._exit(EXIT_ENGINE_BROKE)

    def _first_plan(self) -> LoadPlan:
        while True:
            for command in self._take(wait=True):
                if isinstance(command, Load):
                    name_process(NAME_LOADED)
                    return command.plan

    def _loaded(self, plan: LoadPlan) -> Engine:
        told = 0.0

        def progress(fraction: float) -> None:
            nonlocal told
            if fraction - told >= PROGRESS_STEP:
                told = fraction
                self._outbox.send([LoadProgress(fraction)])

        before = memory_before()
        self._engine = engine = self._load(plan, progress)
        # What is loaded stays: looking for garbage in it would only interrupt steps.
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS)
        self._outbox.send(
            [
                Loaded(
                    n_ctx=engine.n_ctx,
                    n_slots=engine.n_slots,
                    memory=memory_use(before, engine.buffers, engine.later_bytes),
                    memory_kind=engine.memory_kind,
                )
            ]
        )
        return engine

    def _idles(self, seconds: float) -> bool:
        """Wait for a command, and return whether none came for so long."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._commands, timeout=seconds)

    def _take(self, *, wait: bool) -> list[ToRunner]:
        with self._changed:
            while wait and not self._commands:
                self._changed.wait()
            commands = list(self._commands)
            self._commands.clear()
        return commands

    def _apply(self, engine: Engine, commands: list[ToRunner]) -> None:
        for command in commands:
            match command:
                case Generate() | Embed() | Rank():
                    try:
                        engine.submit(command)
                    except EngineRefused as exc:
                        self._outbox.send([Failed(command.id, exc.code, exc.detail)])
                case Tokenize():
                    try:
                        tokens = engine.tokenize(command.text, add_special=command.add_special)
                        self._outbox.send([Tokenized(command.id, tokens)])
                    except EngineRefused as exc:
                        self._outbox.send([Failed(command.id, exc.code, exc.detail)])
                case Cancel():
                    self._publish(engine.cancel(command.id))
                case Threads(n_threads):
                    engine.use_threads(n_threads)
                case Load() | Shutdown():
                    pass  # A second Load means nothing; Shutdown is for Trio's side.
                case _:
                    assert_never(command)

    def _publish(self, result: StepResult) -> None:
        if not result:
            return
        messages: list[FromRunner] = []
        if result.deltas:
            messages.append(Deltas(tuple(result.deltas)))
        messages.extend(result.finished)
        messages.extend(result.answers)
        messages.extend(result.failed)
        self._outbox.send(messages)


def name_process(name: str) -> None:
    """Set the name that `ps` and `top` show for this process: its arguments never change."""
    _set_name(Path("/proc/self/comm"), name)


def name_thread(name: str) -> None:
    """Set the name that `top -H` shows for this thread."""
    _set_name(Path("/proc/thread-self/comm"), name)


def _set_name(path: Path, name: str) -> None:
    with contextlib.suppress(OSError):  # A container may hide it, and nothing depends on it.
        path.write_text(name)


async def serve(
    end: socket.socket, load: EngineLoader, build: str, confinement: Confinement
) -> None:
    """Serve one daemon over *end* until it closes it or says `Shutdown`."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    name_process(NAME_SPARE)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(end))
    channel: Channel[ToRunner, FromRunner] = Channel(stream, ToRunner)
    outbox = Outbox(end)
    engine = EngineThread(load, outbox)
    hello = Hello(
        protocol=PROTOCOL_VERSION, pid=os.getpid(), build=build, confinement=confinement.applied
    )
    outbox.send([hello])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.flush)
        nursery.start_soon(_beat, engine, outbox)
        try:
            while not isinstance(command := await channel.receive(), Shutdown):
                if isinstance(command, Load) and not engine.is_started:
                    confinement.narrow(command.plan)
                    engine.start()
                engine.put(command)
        except ChannelClosed:
            pass  # The daemon is gone, or wants us gone.
        except ProtocolBroken as exc:
            os.write(2, f"E {exc}\n".encode())
        # Not an orderly end on purpose: the engine's thread may be deep inside a computation, and
        # nothing here needs saving.
        os._exit(0)


async def _beat(engine: EngineThread, outbox: Outbox) -> None:
    while True:
        await engine.given_work()
        is_busy = True
        while is_busy:
            await trio.sleep(BEAT_PERIOD_S)
            is_busy = engine.is_busy
            if (beat := engine.beat) is not None:
                outbox.send([beat])

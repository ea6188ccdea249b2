"""A worker that stands still at one point of its life, for as long as somebody needs to kill it.

`--pause POINT` names the point; without it, it is a worker like any other. It says where it stands
with a line of log. Real model, real engine, real confinement: only the pauses are added.
"""

from __future__ import annotations

import enum
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

from ollamad.runners.protocol import LoadPlan
from ollamad.runners.worker.__main__ import ENGINES, main
from ollamad.runners.worker.engine import Engine, EngineLoader, StepResult

PAUSE_S: Final = 60.0
"""Longer than any of the daemon's patience in these tests."""
PAUSE_OPTION: Final = "--pause"
SAID: Final = "pauses at"
STEPS_BEFORE_MID_STREAM: Final = 20
LOADED_AT_MID_LOAD: Final = 0.3
SLOW_STEP_S: Final = 0.02


class Point(enum.StrEnum):
    """Where a runner may be struck."""

    SPAWN = "spawn"
    HELLO = "hello"
    MID_LOAD = "mid-load"
    BEFORE_TOKENS = "before-tokens"
    MID_STREAM = "mid-stream"
    DRAINING = "draining"
    STOPPING = "stopping"


def pause(point: Point) -> None:
    os.write(1, f"I process {os.getpid()} {SAID} {point}\n".encode())
    time.sleep(PAUSE_S)


class Paused:
    """An engine that pauses before its first step, or after some."""

    def __init__(self, engine: Engine, point: Point) -> None:
        self._engine = engine
        self._point = point
        self._n_steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self) -> StepResult:
        if self._point is Point.BEFORE_TOKENS:
            pause(self._point)
        if self._point is Point.DRAINING:
            time.sleep(SLOW_STEP_S)  # Still at it when it is ordered to leave.
        self._n_steps += 1
        if self._point is Point.MID_STREAM and self._n_steps == STEPS_BEFORE_MID_STREAM:
            pause(self._point)
        return self._engine.step()


def paused_engine(point: Point) -> tuple[EngineLoader, Callable[[], str]]:
    load, start = ENGINES["llama"]()

    def paused_load(plan: LoadPlan, on_progress: Callable[[float], None]) -> Engine:
        has_paused = False

        def progress(fraction: float) -> None:
            nonlocal has_paused
            on_progress(fraction)
            if point is Point.MID_LOAD and fraction >= LOADED_AT_MID_LOAD and not has_paused:
                has_paused = True
                pause(point)

        engine: Any = Paused(load(plan, progress), point)
        return engine  # type: ignore[no-any-return]

    def paused_start() -> str:
        build = start()
        if point is Point.HELLO:
            pause(point)
        return build

    return paused_load, paused_start


def slow_exit(status: int) -> NoReturn:
    pause(Point.STOPPING)
    real_exit(status)


real_exit: Final = os._exit

if __name__ == "__main__":
    if PAUSE_OPTION not in sys.argv:
        main()
    else:
        at = sys.argv.index(PAUSE_OPTION)
        chosen = Point(sys.argv[at + 1])
        del sys.argv[at : at + 2]
        if chosen is Point.SPAWN:
            pause(chosen)
        if chosen is Point.STOPPING:
            os._exit = slow_exit
        main(lambda: paused_engine(chosen))

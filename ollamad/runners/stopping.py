"""The stop ladder: ask, terminate, kill. Bounded, and not cancellable."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Iterator

import trio

from ollamad.runners.launch import RunnerProcess


class Rung(enum.Enum):
    """How hard a runner had to be pushed."""

    ASK = "asked"
    TERMINATE = "terminated"
    KILL = "killed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long each rung is given. Killing needs no patience: the kernel does it."""

    ask_s: float
    terminate_s: float

    def rungs(self) -> Iterator[tuple[Rung, float]]:
        """Yield each rung with its patience in seconds."""
        yield Rung.ASK, self.ask_s
        yield Rung.TERMINATE, self.terminate_s
        yield Rung.KILL, math.inf


async def stop(process: RunnerProcess, ask: Callable[[], None], patience: Patience) -> Rung:
    """Stop a runner and return the rung that was needed.

    *ask* tells the runner in its own protocol and does not wait. Not cancellable, and bounded by
    *patience*: a cancelled daemon must still not leave a process that holds memory.
    """
    push = {Rung.ASK: ask, Rung.TERMINATE: process.terminate, Rung.KILL: process.kill}
    with trio.CancelScope(shield=True):
        for rung, patience_s in patience.rungs():
            push[rung]()
            with trio.move_on_after(patience_s):
                await process.wait()
                return rung
    raise AssertionError("waiting for a killed process ended without its exit")

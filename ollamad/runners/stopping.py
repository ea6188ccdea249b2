"""The stop ladder: ask, terminate, kill. Bounded, and not cancellable.

Killing is bounded as well: a process that hangs in the kernel (a GPU's driver, a dead network disk)
does not end before the kernel is done with it, and the daemon must not hang with it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator
from typing import Final

import trio

from ollamad.runners.launch import RunnerProcess

KILL_PATIENCE_S: Final = 30.0
"""How long a killed process may take to be gone. A driver that frees much memory takes seconds."""


class Rung(enum.Enum):
    """How hard a runner had to be pushed."""

    ASK = "asked"
    TERMINATE = "terminated"
    KILL = "killed"
    LEFT = "left behind, because killing did not end it"
    """Not a push: nothing helps. Its memory may stay taken."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long each rung is given."""

    ask_s: float
    terminate_s: float
    kill_s: float = KILL_PATIENCE_S

    def rungs(self) -> Iterator[tuple[Rung, float]]:
        """Yield each rung with its patience in seconds."""
        yield Rung.ASK, self.ask_s
        yield Rung.TERMINATE, self.terminate_s
        yield Rung.KILL, self.kill_s


async def stop(process: RunnerProcess, ask: Callable[[], None], patience: Patience) -> Rung:
    """Stop a runner and return the rung that was needed, or LEFT if none helped.

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
    return Rung.LEFT

"""`ExactDemand`: makes the demand of a model exact where an estimate was not enough.

For whoever was told that a model does not fit: the engine itself is asked, in a dry run, and what
it says goes into the book that plans are made with. Then asking the core once more may have another
outcome. The core itself never waits for this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ollamad.buffersizes import BufferSizes
from ollamad.options import LoadOptions
from ollamad.runners.protocol import LoadPlan
from ollamad.supervisor.compat import PlanDefaults, options_key, plans
from ollamad.supervisor.events import Subject

Measure = Callable[[LoadPlan], Awaitable[BufferSizes | None]]
"""`Measurer.measure`: what a plan would allocate, `None` if that cannot be known."""


class ExactDemand:
    """Asks the engine about plans, each of them once."""

    def __init__(self, defaults: PlanDefaults, measure: Measure) -> None:
        self._defaults = defaults
        self._measure = measure

    async def learn(self, subject: Subject, options: LoadOptions) -> bool:
        """Return whether the engine said something new of the plans for *subject*.

        There are as many dry runs as plans, a few: one for each number of slots. What the engine
        cannot tell of one plan it cannot tell of the next either.
        """
        learned = self._defaults.learned
        has_learned = False
        for plan, _ in list(plans(subject, options, self._defaults)):
            key = options_key(plan)
            if learned.buffers(key) is not None:
                continue
            sizes = await self._measure(plan)
            if sizes is None:
                break
            learned.note_buffers(key, sizes)
            has_learned = True
        return has_learned

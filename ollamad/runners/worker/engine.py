"""`Engine`, the interface between a runner's I/O and what computes, and its result types.

All methods but `interrupt` are called from one thread. A step computes one batch and returns what
came of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

from ollamad.buffersizes import BufferSizes
from ollamad.runners.protocol import (
    Delta,
    Embed,
    Embedded,
    EngineGauges,
    Failed,
    FailureCode,
    Finished,
    Generate,
    LoadPlan,
    MemoryKind,
    Rank,
    Ranked,
    RequestId,
)

Request = Generate | Embed | Rank
"""What an engine computes."""


class EngineRefused(Exception):
    """The engine cannot do what was asked. The request ends, others go on."""

    def __init__(self, code: FailureCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclasses.dataclass(slots=True)
class StepResult:
    """What one step produced. Lists in the order of the slots."""

    deltas: list[Delta] = dataclasses.field(default_factory=list)
    finished: list[Finished] = dataclasses.field(default_factory=list)
    answers: list[Embedded | Ranked] = dataclasses.field(default_factory=list)
    failed: list[Failed] = dataclasses.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.deltas or self.finished or self.answers or self.failed)


class Engine(Protocol):
    """Computes answers for many requests side by side."""

    @property
    def n_ctx(self) -> int:
        """Context length of one sequence, in tokens."""
        ...

    @property
    def n_slots(self) -> int:
        """Sequences computed side by side."""
        ...

    @property
    def has_work(self) -> bool:
        """A step would compute something."""
        ...

    @property
    def is_steady(self) -> bool:
        """The next step will take about as long as the last one."""
        ...

    @property
    def memory_kind(self) -> MemoryKind:
        """What the model's context memory allows."""
        ...

    @property
    def buffers(self) -> BufferSizes | None:
        """What it allocated for the model beside the weights; `None` if it cannot tell."""
        ...

    @property
    def later_bytes(self) -> int:
        """Main memory that it will take once more, when it first has time or needs it."""
        ...

    @property
    def gauges(self) -> EngineGauges:
        """What the engine does now. May be read from another thread."""
        ...

    def submit(self, request: Request) -> None:
        """Take a request. Raises EngineRefused."""
        ...

    def cancel(self, request_id: RequestId) -> StepResult:
        """Drop a request, wherever it is, and return its ending, if it is a `Generate`.

        Unknown ids are ignored.
        """
        ...

    def step(self) -> StepResult:
        """Compute one batch."""
        ...

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        """Return token ids of *text*. Raises EngineRefused."""
        ...

    def use_threads(self, n_threads: int) -> None:
        """Compute with so many threads from now on."""
        ...

    def use_idle_time(self) -> None:
        """Begin what can be made in advance: there is nothing to do. Returns at once."""
        ...

    def interrupt(self, request_id: RequestId) -> None:
        """End the running step early if it is worth it: *request_id* will be cancelled.

        May be called from another thread.
        """
        ...


EngineLoader = Callable[[LoadPlan, Callable[[float], None]], Engine]
"""Loads a model, telling its progress from 0 to 1. Raises EngineRefused."""

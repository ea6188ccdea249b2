"""`EchoEngine`: answers with the words of its prompt, needs no model. For tests only.

It computes one token a step for every open request, as the real engine does, so that streams
interleave. Prompts that begin with `!` act out the faults that only a real process can show.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Final

from ollamad.buffersizes import BufferSizes
from ollamad.runners.protocol import (
    Delta,
    EngineGauges,
    FailureCode,
    Finished,
    FinishReason,
    Generate,
    LoadPlan,
    MemoryKind,
    RequestId,
    Timings,
)
from ollamad.runners.worker.engine import EngineRefused, Request, StepResult
from ollamad.runners.worker.text import TextAssembler

HANG_S: Final = 3600.0
BROKEN_MODEL: Final = "broken"
"""A model whose path ends so cannot be loaded."""
HUNGRY_MODEL: Final = "hungry"
"""A model whose path ends so needs more memory than there is."""


class EchoEngine:
    """See the module. `!crash`, `!hang`, `!raise`, `!fail` do so; `!count N` counts to N.

    `!paced MS N` counts as well, and makes every step take so many milliseconds while it is open.
    """

    def __init__(self, plan: LoadPlan, on_progress: Callable[[float], None]) -> None:
        if plan.model_path.endswith(BROKEN_MODEL):
            raise EngineRefused(FailureCode.NOT_A_MODEL, "this echo model is broken")
        if plan.model_path.endswith(HUNGRY_MODEL):
            raise EngineRefused(FailureCode.OUT_OF_MEMORY, "this echo model wants all memory")
        on_progress(1.0)
        self.n_ctx = plan.n_ctx
        self.n_slots = plan.n_slots
        self._open: dict[RequestId, _Echo] = {}
        self._paces_s: dict[RequestId, float] = {}
        self._steps = 0

    @property
    def has_work(self) -> bool:
        """A step would produce something."""
        return bool(self._open)

    @property
    def is_steady(self) -> bool:
        """Never: tests want to see each word by itself."""
        return False

    @property
    def buffers(self) -> BufferSizes | None:
        """See Engine."""
        return None

    @property
    def memory_kind(self) -> MemoryKind:
        """It has none."""
        return MemoryKind.NONE

    @property
    def later_bytes(self) -> int:
        """See Engine: nothing."""
        return 0

    @property
    def gauges(self) -> EngineGauges:
        """What the engine does now."""
        busy = min(len(self._open), self.n_slots)
        return EngineGauges(slots_busy=busy, waiting=len(self._open) - busy, steps=self._steps)

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        """Return one id a word, and one more in front with *add_special*."""
        ids = tuple(len(word) for word in text.split())
        return (1, *ids) if add_special else ids

    def submit(self, request: Request) -> None:
        """Take a request."""
        if not isinstance(request, Generate):
            raise EngineRefused(FailureCode.BAD_REQUEST, "an echo has no vectors")
        words = request.prompt.split() or ["(nothing)"]
        if len(words) >= self.n_ctx:
            raise EngineRefused(
                FailureCode.CONTEXT_TOO_LONG, f"{len(words)} words, the context holds {self.n_ctx}"
            )
        match words:
            case ["!crash", *_]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["!raise", *_]:
                raise RuntimeError("asked to raise")
            case ["!hang", *_]:
                time.sleep(HANG_S)
            case ["!fail", *_]:
                raise EngineRefused(FailureCode.ENGINE, "asked to fail")
            case ["!count", number, *_]:
                words = [str(i) for i in range(int(number))]
            case ["!paced", milliseconds, number, *_]:
                words = [str(i) for i in range(int(number))]
                self._paces_s[request.id] = int(milliseconds) / 1000
        self._open[request.id] = _Echo(request, words)

    def use_threads(self, n_threads: int) -> None:
        """It computes with one."""

    def use_idle_time(self) -> None:
        """Nothing can be made in advance."""

    def interrupt(self, request_id: RequestId) -> None:
        """Steps are short: nothing to interrupt."""

    def cancel(self, request_id: RequestId) -> StepResult:
        """Drop a request."""
        self._paces_s.pop(request_id, None)
        if self._open.pop(request_id, None) is None:
            return StepResult()
        return StepResult(
            finished=[Finished(id=request_id, reason=FinishReason.CANCELLED, timings=Timings())]
        )

    def step(self) -> StepResult:
        """Produce one word of every request that has a slot."""
        result = StepResult()
        self._steps += 1
        if self._paces_s:
            time.sleep(max(self._paces_s.values()))
        for request_id, echo in list(self._open.items())[: self.n_slots]:
            if not echo.is_over:
                offset = echo.n_said
                result.deltas.append(Delta(request_id, offset, echo.say(), (1,)))
            if not echo.is_over:
                continue
            del self._open[request_id]
            self._paces_s.pop(request_id, None)
            result.finished.append(echo.finished())
        return result


class _Echo:
    """One answer: its words, and how many of them were said, here or by another runner."""

    def __init__(self, request: Generate, words: list[str]) -> None:
        self._request = request
        self._words = words
        self._text = TextAssembler(request.sampling.stop)
        self.n_said = 0
        for _ in request.answered:
            self.say()

    def say(self) -> str:
        word = self._words[self.n_said]
        self.n_said += 1
        return self._text.feed(word.encode() + b" ")

    @property
    def _is_full(self) -> bool:
        return 0 < self._request.sampling.num_predict <= self.n_said

    @property
    def is_over(self) -> bool:
        return self._text.is_stopped or self._is_full or self.n_said >= len(self._words)

    def finished(self) -> Finished:
        is_cut = self._is_full and not self._text.is_stopped and self.n_said < len(self._words)
        return Finished(
            id=self._request.id,
            reason=FinishReason.LENGTH if is_cut else FinishReason.STOP,
            timings=Timings(
                prompt_tokens=len(self._request.prompt.split()),
                generated_tokens=self.n_said - len(self._request.answered),
            ),
            stop=self._text.stop,
            rest=self._text.finish(),
        )

"""A queue whose writer never waits: what the runner says about one request.

The reader of a runner's socket must never wait for a client, so `put` and `close` are synchronous
and `take` returns everything written since the last call as one piece. Memory is bounded by one
generation. A slow client slows nobody else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import trio

from ollamad.errors import OllamadError, RunnerCrashed
from ollamad.runners.protocol import Delta, Finished, StepLogprob


@dataclasses.dataclass(slots=True)
class Piece:
    """Text that came since the last `take`, with its tokens."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[StepLogprob, ...] = ()


Forward = Callable[[Delta], bool]
"""Takes a delta at once, or says that it does not."""


class Mailbox:
    """Deltas of one request, merged while their reader is slow, then the outcome."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self._outcome: Finished | OllamadError | None = None
        self._changed = trio.Event()
        self._forward: Forward | None = None

    @property
    def is_closed(self) -> bool:
        """The outcome is known; nothing more will come."""
        return self._outcome is not None

    def put(self, delta: Delta) -> None:
        """Add a delta. Never waits."""
        if self._forward is not None and not self._deltas and self._forward(delta):
            return
        self._deltas.append(delta)
        self._changed.set()

    def close(self, outcome: Finished | OllamadError) -> None:
        """Say how the request ended. The first outcome stands.

        The end's own text is one more delta: whoever takes it need not know of two kinds.
        """
        if self._outcome is None:
            if isinstance(outcome, Finished) and outcome.rest:
                self.put(Delta(outcome.id, outcome.timings.generated_tokens, outcome.rest, ()))
            self._outcome = outcome
            self._changed.set()

    def lose(self, error: RunnerCrashed) -> None:
        """Say that the runner has ended. Nobody goes on with this one: it ends as well."""
        self.close(error)

    async def take(self, forward: Forward | None = None) -> Piece | Finished:
        """Return what is new, or the outcome once everything has been taken.

        While it waits, each delta is shown to *forward* first; what that takes is not returned,
        and nobody is woken for it. Waking the reader of a stream for each of its tokens costs as
        much as writing them. *forward* runs in the writer's task: it must not wait, nor raise.

        Always a checkpoint. Raises the outcome if it is an error; what came before it is
        returned first.
        """
        if self._deltas or self._outcome is not None:
            await trio.lowlevel.checkpoint()
        while not self._deltas and self._outcome is None:
            self._changed = trio.Event()
            self._forward = forward
            try:
                await self._changed.wait()
            finally:
                self._forward = None
        if self._deltas:
            deltas, self._deltas = self._deltas, []
            if len(deltas) == 1:
                only = deltas[0]
                return Piece(only.text, only.tokens, only.logprobs)
            return Piece(
                "".join(delta.text for delta in deltas),
                tuple(token for delta in deltas for token in delta.tokens),
                tuple(step for delta in deltas for step in delta.logprobs),
            )
        if isinstance(self._outcome, OllamadError):
            # A fresh traceback each time: the stored one would grow with every raise.
            raise self._outcome.with_traceback(None)
        assert self._outcome is not None  # noqa: S101 - the loop above ended on it
        return self._outcome

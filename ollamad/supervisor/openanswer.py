"""`OpenAnswer`: one answer, whichever runners compute it.

A runner's client puts into it what the runner says; its mailbox is what the request's own task
reads. When the runner dies, the mailbox stays open and another runner is told what was generated
already: what counts is what has come here, whether it is still in the mailbox or with the client.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from ollamad.errors import OllamadError, RunnerCrashed
from ollamad.runners.client import RunnerClient
from ollamad.runners.mailbox import Mailbox
from ollamad.runners.protocol import Delta, Finished, Generate, RequestId, Timings
from ollamad.supervisor.healing import Part


@dataclasses.dataclass(slots=True)
class _Run:
    """What one runner does for the answer. Times are seconds of Trio's clock."""

    client: RunnerClient
    id: RequestId
    part: Part
    started_at: float
    first_at: float = 0.0


class OpenAnswer:
    """See the module. *on_lost* and *on_first* are told of each runner's death and first word."""

    def __init__(
        self,
        request: Generate,
        on_lost: Callable[[Part, RunnerCrashed], None],
        on_first: Callable[[OpenAnswer], None],
    ) -> None:
        self.mailbox: Final = Mailbox()
        self.request: Final = request
        """As the first runner gets it, but for its id."""
        self.tokens: Final[list[int]] = []
        """All of the answer so far. Bounded by one generation."""
        self._on_lost = on_lost
        self._on_first = on_first
        self._run: _Run | None = None
        self._spent = Timings()
        """What runners that died have cost, as far as it could be seen from here."""

    @property
    def is_lost(self) -> bool:
        """No runner computes it, and it has not ended."""
        return self._run is None and not self.mailbox.is_closed

    @property
    def n_healed(self) -> int:
        """How many runners have died under it."""
        return self._spent.healed

    def start(self, client: RunnerClient) -> None:
        """Have a runner begin the answer, or go on with it."""
        part = Part.ABSENT if client.is_closed else Part.UNSERVED
        self._run = _Run(client, client.next_id(), part, trio.current_time())
        answered = tuple(self.tokens)
        client.generate(
            msgspec.structs.replace(self.request, id=self._run.id, answered=answered), self
        )

    def cancel(self) -> None:
        """Nobody waits for it any more. Synchronous and idempotent."""
        if self._run is not None:
            self._run.client.cancel(self._run.id)

    # What the runner's client calls

    def put(self, delta: Delta) -> None:
        """Take a delta. Never waits."""
        if (run := self._run) is not None and run.part is not Part.SERVED:
            run.part, run.first_at = Part.SERVED, trio.current_time()
            self._on_first(self)
        self.tokens.extend(delta.tokens)
        self.mailbox.put(delta)

    def close(self, outcome: Finished | OllamadError) -> None:
        """Take the end."""
        if isinstance(outcome, Finished) and self.n_healed:
            timings = together(self._spent, outcome.timings)
            outcome = msgspec.structs.replace(outcome, timings=timings)
        if (run := self._run) is not None and run.part is Part.UNSERVED:
            self._on_first(self)
        self.mailbox.close(outcome)

    def lose(self, error: RunnerCrashed) -> None:
        """The runner has died: whoever was told so finds another one, or closes this."""
        assert self._run is not None  # noqa: S101 - only who runs it can lose it
        run, self._run = self._run, None
        now, was_served = trio.current_time(), run.part is Part.SERVED
        seen = Timings(
            prefill_s=(run.first_at if was_served else now) - run.started_at,
            decode_s=now - run.first_at if was_served else 0.0,
            generated_tokens=len(self.tokens) - self._spent.generated_tokens,
            healed=1,
        )
        self._spent = together(self._spent, seen)
        self._on_lost(run.part, error)


def together(spent: Timings, last: Timings) -> Timings:
    """Return what an answer has cost, of which dead runners have *spent* a part.

    Times and generated tokens add up. The prompt is one, however often it was computed: its tokens
    are the last runner's, and so are the cached ones. Which tokens dead runners were forced to is
    not known, they are not counted as such.
    """
    return msgspec.structs.replace(
        last,
        queue_s=spent.queue_s + last.queue_s,
        prefill_s=spent.prefill_s + last.prefill_s,
        decode_s=spent.decode_s + last.decode_s,
        generated_tokens=spent.generated_tokens + last.generated_tokens,
        healed=spent.healed + last.healed,
    )

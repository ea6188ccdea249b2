"""What the answers of a request cost, in tokens, and why each of them ended. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from ollamad.http.ids import new_id
from ollamad.http.openai.wire import CompletionTokens, PromptTokens, Usage
from ollamad.runners.protocol import Finished, FinishReason, Timings

_REASONS: Final = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CANCELLED: "stop",
}
_CALLED: Final = "tool_calls"


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What all objects of one answer to a request say."""

    id: str
    created: int
    """Seconds since 1970."""
    model: str
    """As the request names it."""

    @classmethod
    def new(cls, prefix: str, now: datetime, model: str) -> Head:
        """Return one with an id that nothing else has."""
        return cls(new_id(f"{prefix}-"), int(now.timestamp()), model)


@dataclasses.dataclass(slots=True)
class Tally:
    """What one answer has cost so far."""

    prompt: int = 0
    """The number of its prompt among those of the request."""
    n_calls: int = 0
    thinking_tokens: int = 0
    timings: Timings | None = None
    """All of it, once it has ended."""

    def end(self, finished: Finished, thinking_tokens: int = 0) -> str:
        """Note the end, and return why it is there."""
        self.timings, self.thinking_tokens = finished.timings, thinking_tokens
        reason = _REASONS[finished.reason]
        return _CALLED if self.n_calls and reason == "stop" else reason


def usage_of(tallies: Sequence[Tally]) -> Usage:
    """Return what ended answers cost together. Several answers to one prompt have read it once."""
    by_prompt: dict[int, list[Timings]] = {}
    for tally in tallies:
        if tally.timings is not None:
            by_prompt.setdefault(tally.prompt, []).append(tally.timings)
    prompt_tokens = sum(some[0].prompt_tokens for some in by_prompt.values())
    # All but the first find it in the cache, because the first one has put it there.
    cached_tokens = sum(min(one.cached_tokens for one in some) for some in by_prompt.values())
    generated = [one.generated_tokens for some in by_prompt.values() for one in some]
    thinking = [
        min(tally.thinking_tokens, tally.timings.generated_tokens)
        for tally in tallies
        if tally.timings is not None
    ]
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=sum(generated),
        total_tokens=prompt_tokens + sum(generated),
        prompt_tokens_details=PromptTokens(cached_tokens=cached_tokens),
        completion_tokens_details=CompletionTokens(reasoning_tokens=sum(thinking)),
    )

"""Slots: the seats of an engine, each with its sequence of tokens, and their machine. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Final

from ollamad.errors import ProtocolBroken
from ollamad.runners.protocol import FinishReason, Generate, Timings
from ollamad.runners.worker.text import TextAssembler


class SlotState(enum.Enum):
    """What a slot does."""

    IDLE = "idle"
    PREFILL = "prefill"
    DECODE = "decode"


class SlotEvent(enum.Enum):
    """What can happen to a slot."""

    SEATED = "seated"
    PROMPT_DONE = "prompt done"
    LEFT = "left"


TRANSITIONS: Final[Mapping[SlotState, Mapping[SlotEvent, SlotState]]] = {
    SlotState.IDLE: {SlotEvent.SEATED: SlotState.PREFILL},
    SlotState.PREFILL: {
        SlotEvent.PROMPT_DONE: SlotState.DECODE,
        SlotEvent.LEFT: SlotState.IDLE,
    },
    SlotState.DECODE: {SlotEvent.LEFT: SlotState.IDLE},
}


def advance(state: SlotState, event: SlotEvent) -> SlotState:
    """Return the state after *event*. Raises ProtocolBroken if the table has no such row."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ProtocolBroken(f"a slot in {state.name} cannot take {event.name}") from None


@dataclasses.dataclass(slots=True, kw_only=True)
class Sequence:
    """One request while it has a slot. Times are seconds of the worker's monotonic clock."""

    request: Generate
    prompt: list[int]
    text: TextAssembler
    sampler: Any
    """Chooses the tokens; its type belongs to the engine."""
    n_generated_max: int
    arrived_at: float
    seated_at: float
    arrival: int
    n_cached: int = 0
    """Prompt tokens that were in the KV cache already."""
    generated: list[int] = dataclasses.field(default_factory=list)
    prefilled_at: float = 0.0

    def timings(self, now: float) -> Timings:
        """Return what the request has cost until *now*."""
        prefilled_at = self.prefilled_at or now
        return Timings(
            queue_s=self.seated_at - self.arrived_at,
            prefill_s=prefilled_at - self.seated_at,
            decode_s=now - prefilled_at,
            prompt_tokens=len(self.prompt),
            cached_tokens=self.n_cached,
            generated_tokens=len(self.generated),
        )


@dataclasses.dataclass(slots=True)
class Slot:
    """A seat for one sequence. Its number is the sequence id in the KV cache."""

    number: int
    state: SlotState = SlotState.IDLE
    sequence: Sequence | None = None
    cached: list[int] = dataclasses.field(default_factory=list)
    """Tokens whose keys and values are in the KV cache, from position 0."""
    last_used: int = 0

    def seat(self, sequence: Sequence, n_cached: int) -> None:
        """Give the slot to *sequence*, which finds its first *n_cached* tokens computed."""
        self.state = advance(self.state, SlotEvent.SEATED)
        self.sequence = sequence
        sequence.n_cached = n_cached
        del self.cached[n_cached:]

    def leave(self, tick: int) -> Sequence:
        """Free the slot and return who sat there. The KV cache stays for a later prompt."""
        self.state = advance(self.state, SlotEvent.LEFT)
        sequence, self.sequence = self.sequence, None
        assert sequence is not None  # noqa: S101 - a seated slot has one
        self.last_used = tick
        return sequence

    @property
    def pending(self) -> list[int]:
        """Tokens to compute next: what is left of the prompt, or the last chosen token."""
        assert self.sequence is not None  # noqa: S101 - asked of seated slots only
        if self.state is SlotState.PREFILL:
            return self.sequence.prompt[len(self.cached) :]
        return self.sequence.generated[-1:]


def limit_reached(sequence: Sequence, n_held: int, n_ctx: int) -> FinishReason | None:
    """Return LENGTH when the answer may not grow: its own limit, or the context is full."""
    if len(sequence.generated) >= sequence.n_generated_max or n_held + 1 >= n_ctx:
        return FinishReason.LENGTH
    return None
